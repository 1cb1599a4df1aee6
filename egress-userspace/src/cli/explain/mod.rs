//! `egress-router explain`: what would happen to a new connection, and why.

mod args;
mod explanation;
mod route;
mod rule;
mod sockets;
mod steps;
mod table;

use std::process::ExitCode;

pub use self::args::Args;
use self::steps::Steps;
use super::{
    exit,
    output::{self, Output},
    terminal,
};

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    args.check();
    let instance = args.instance.find()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let explanation = runtime.block_on(Steps::follow(&args, &instance))?;
    match args.output {
        Output::Json => output::json(&explanation)?,
        Output::Text => output::text(&explanation.text(terminal::columns()))?,
    }
    Ok(if explanation.forwarded {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::NOT_FORWARDED)
    })
}
