//! `egress-router man`: manual pages.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap_mangen::Man;

/// Print the manual page, or write that of each command
///
/// Without a directory the page of `egress-router` itself is printed. With one, a page for it and for each command is
/// written there: `egress-router.1`, `egress-router-run.1` and so on.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  egress-router man | man -l -
  egress-router man --directory /usr/share/man/man1")]
pub struct Args {
    /// Where to write a page for each command; has to be there
    #[arg(long, value_name = "DIR")]
    directory: Option<PathBuf>,
}

/// Prints the main page, or writes all pages to a directory.
pub fn run(args: Args, command: clap::Command) -> anyhow::Result<ExitCode> {
    if let Some(directory) = args.directory {
        clap_mangen::generate_to(command, &directory)
            .with_context(|| format!("could not write to {}", directory.display()))?;
    } else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        io::stdout().lock().write_all(&page)?;
    }
    Ok(ExitCode::SUCCESS)
}
