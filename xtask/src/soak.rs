//! `soak`: runs the soak test, which is a program of the tests.

use anyhow::Result;

use crate::build::{self, Profile};
use crate::setup;
use crate::workspace::Workspace;

/// The options of `soak`.
#[derive(Clone, Copy, clap::Args)]
pub struct Options {
    /// How long to run
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    minutes: u64,

    /// The seed of random numbers, to repeat a run
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

/// Builds everything and runs the soak test.
pub fn run(workspace: &Workspace, Options { minutes, seed }: Options) -> Result<()> {
    setup::ensure_complete(workspace)?;
    build::all(workspace, Profile::Debug)?;
    let soak = "run --package egress-tests --bin soak --";
    Ok(workspace
        .cargo(&format!("{soak} --minutes {minutes} --seed {seed}"))
        .run()?)
}
