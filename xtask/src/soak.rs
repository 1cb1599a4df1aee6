//! `soak`: mixed traffic for a long time, by a program of the tests.

use anyhow::Result;

use crate::build::{self, Profile};
use crate::setup;
use crate::workspace::Workspace;

/// What to run.
#[derive(Clone, Copy, clap::Args)]
pub struct Options {
    /// For how long
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    minutes: u64,

    /// What the random numbers begin with, to repeat a run
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

/// Builds everything, and soaks a router.
pub fn run(workspace: &Workspace, Options { minutes, seed }: Options) -> Result<()> {
    setup::ensure_complete(workspace)?;
    build::all(workspace, Profile::Debug)?;
    let soak = "run --package egress-tests --bin soak --";
    Ok(workspace
        .cargo(&format!("{soak} --minutes {minutes} --seed {seed}"))
        .run()?)
}
