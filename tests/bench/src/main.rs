//! The benchmarks of the egress router, in their own labs. `cargo xtask bench` builds what they need and runs them;
//! `docs/benchmarks/README.md` explains the results.

mod bench;
mod cases;
mod contender;
mod iptables;
mod kernel;
mod machine;
mod plot;
mod report;
mod source;
mod stats;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use egress_tests::requirements;

use crate::bench::{Bench, Plan, progress};
use crate::cases::Case;
use crate::kernel::Object;
use crate::machine::Machine;
use crate::report::Report;

/// Measures the egress router beside the kernel's own NAT; started by `cargo xtask bench`
#[derive(Parser)]
#[command(name = "egress-bench")]
struct Cli {
    /// A few short rounds, for a first impression
    #[arg(long)]
    quick: bool,

    /// Only these cases
    #[arg(long = "case", value_enum)]
    cases: Vec<Case>,

    /// The number of rounds, instead of the mode's
    #[arg(long)]
    rounds: Option<usize>,

    /// The format of the output
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// Also write the results as files to this directory
    #[arg(long)]
    into: Option<PathBuf>,

    /// The object with the benchmarks' own programs
    #[arg(long)]
    object: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress("");
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    if let Some(reason) = requirements::missing() {
        bail!("cannot build the labs here: {reason}");
    }
    let machine = Machine::this();
    if cli.output == Output::Text {
        println!("{machine}\n");
    }
    let mut plan = if cli.quick { Plan::QUICK } else { Plan::FULL };
    plan.rounds = cli.rounds.unwrap_or(plan.rounds);
    let mut bench = Bench::new(plan, Object::new(&cli.object))?;
    let mut tables = Vec::new();
    for case in Case::chosen(&cli.cases, cli.quick) {
        for table in case.run(&mut bench)? {
            progress("");
            if cli.output == Output::Text {
                println!("{}", table.text());
            }
            tables.push(table);
        }
    }
    progress("");
    let report = Report {
        machine,
        mode: if cli.quick { "quick" } else { "full" },
        tables,
    };
    let json = serde_json::to_string_pretty(&report)?;
    if cli.output == Output::Json {
        println!("{json}");
    }
    if let Some(directory) = &cli.into {
        save(&report, &json, directory)?;
        eprintln!("JSON and plots are in {}", directory.display());
    }
    Ok(())
}

fn save(report: &Report, json: &str, directory: &Path) -> Result<()> {
    fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    let file = directory.join("results.json");
    fs::write(&file, format!("{json}\n")).with_context(|| format!("writing {}", file.display()))?;
    plot::save(report, directory)
}
