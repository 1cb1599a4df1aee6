//! `egress-router completions`: shell completions.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap_complete::Shell;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  egress-router completions bash > /etc/bash_completion.d/egress-router
  egress-router completions zsh > /usr/share/zsh/site-functions/_egress-router
  egress-router completions fish > /etc/fish/completions/egress-router.fish
  source <(egress-router completions bash)")]
pub struct Args {
    /// The shell
    shell: Shell,
}

/// Prints the script.
pub fn run(args: Args, mut command: clap::Command) -> anyhow::Result<ExitCode> {
    let name = command.get_name().to_owned();
    // The generator panics if its writer fails, and a closed pipe is no reason to panic.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
