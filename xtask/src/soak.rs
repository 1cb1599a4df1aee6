//! `soak`: mixed traffic for a long time, by a program of the tests.

use anyhow::Result;

use crate::build::{self, Profile};
use crate::process::CommandExt as _;
use crate::setup;
use crate::workspace::Workspace;

/// What to run.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Options {
    /// For how long
    #[arg(long, value_name = "NUMBER", default_value_t = 20)]
    minutes: u64,

    /// What the random numbers begin with, to repeat a run
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
}

/// Builds everything, and soaks a router.
///
/// # Errors
/// The build fails, or what the run finds.
pub fn run(workspace: &Workspace, options: Options) -> Result<()> {
    setup::ensure_complete(workspace)?;
    build::all(workspace, Profile::Debug)?;
    let number = |number: u64| number.to_string();
    workspace
        .cargo()
        .args(["run", "--package", "egress-tests", "--bin", "soak", "--"])
        .args(["--minutes", &number(options.minutes)])
        .args(["--seed", &number(options.seed)])
        .run()
}
