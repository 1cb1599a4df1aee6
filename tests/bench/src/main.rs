//! The benchmarks of the egress router, in labs of their own. `cargo xtask bench` builds all that they need and runs them;
//! `docs/benchmarks/README.md` says what they show.

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
    /// Few and short rounds: a first look
    #[arg(long)]
    quick: bool,

    /// Only these cases
    #[arg(long = "case", value_enum)]
    cases: Vec<Case>,

    /// How many rounds, instead of what the mode has
    #[arg(long)]
    rounds: Option<usize>,

    /// What to print
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,

    /// Where the results go as files, too
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
        bail!("the labs cannot be made here: {reason}");
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
