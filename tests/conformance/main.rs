//! Compares the router with the kernel's own NAT, packet by packet; see `docs/conformance.md`.

mod canonical;
mod checksum;
mod compare;
mod describe;
mod family;
mod fields;
mod generate;
mod known;
mod layout;
mod protocol;
mod recipe;
mod report;
mod run;
mod script;
mod twin;
mod wire;

use std::io::{IsTerminal as _, Write as _, stderr};
use std::process::ExitCode;
use std::sync::atomic::Ordering;

use anyhow::{Result, bail};
use clap::{Parser, ValueEnum};
use egress_tests::requirements;

use crate::family::Family;
use crate::run::{Options, Progress};

/// Sends the same packets through the router and through the kernel's own NAT, and compares what leaves
///
/// `cargo xtask test-conformance` builds and runs this.
#[derive(Parser)]
#[command(name = "conformance")]
struct Cli {
    /// How many packets to send into each of the two
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    packets: u64,
    /// The seed of the packets: the same seed makes the same packets
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Only packets of this IP version
    #[arg(long)]
    family: Option<Family>,
    /// Play only the script with this number, and describe each event
    #[arg(long, value_name = "N")]
    script: Option<u64>,
    /// How to write the summary
    #[arg(long, default_value = "text")]
    output: Format,
}

/// The format of the summary.
#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the comparison. Returns whether every difference is explained.
fn run(cli: &Cli) -> Result<bool> {
    if let Some(reason) = requirements::missing() {
        bail!("cannot build a lab here: {reason}");
    }
    let options = Options {
        packets: cli.packets,
        seed: cli.seed,
        families: cli.family.map_or(Family::ALL.to_vec(), |only| vec![only]),
        script: cli.script,
    };
    let is_watched = stderr().is_terminal();
    let report = run::run(&options, |progress| {
        show_progress(progress, &options, is_watched);
    })?;
    if is_watched {
        eprintln!();
    }
    match cli.output {
        Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
        Format::Text => print!("{report}"),
    }
    Ok(report.is_explained())
}

/// Reports the progress. On a terminal, each report overwrites the last.
fn show_progress(progress: &Progress, options: &Options, is_watched: bool) {
    let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let (start, end) = if is_watched { ("\r", "") } else { ("", "\n") };
    let line = format!(
        "{start}{} of {} packets, {} differences explained, {} unexplained{end}",
        count(&progress.packets),
        options.packets,
        count(&progress.explained),
        count(&progress.unexplained)
    );
    // An error is ignored: nobody reads a closed standard error.
    let _ = stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;
    use egress_tests::skip_unless_lab_works;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_router_and_the_kernels_own_nat_differ_only_where_it_is_documented() -> Result<()> {
        skip_unless_lab_works!();
        let options = Options {
            packets: 100_000,
            seed: 1,
            families: Family::ALL.to_vec(),
            script: None,
        };
        let report = run::run(&options, |_| {})?;
        println!("{report}");
        assert!(report.packets >= options.packets);
        assert!(report.is_explained());
        Ok(())
    }
}
