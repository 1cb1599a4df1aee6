//! `test-conformance`: compares the router with the kernel's own NAT, with generated packets and real programs.

use std::fs::File;
use std::io::{Write as _, stderr, stdout};
use std::os::fd::AsFd as _;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use egress_tests::router::DATAPLANE_VARIABLE;
use nix::unistd::dup2_stdout;
use serde_json::{Map, Value, json};

use crate::build::{self, Profile};
use crate::process::exit_code;
use crate::results::{Format, Summary};
use crate::root::ensure_root;
use crate::workspace::Workspace;
use crate::{setup, test};

/// The values of the variable that selects the dataplane of the tests' lab.
const DATAPLANES: [&str; 2] = ["egress-router", "nftables"];

/// The options of `test-conformance`.
#[derive(Args)]
pub struct Options {
    /// The number of packets that each of the two gets
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    packets: u64,
    /// The seed of the packets: equal seeds give equal packets
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Only packets of this IP version
    #[arg(long, value_name = "FAMILY", value_parser = ["4", "6"])]
    family: Option<String>,
    /// Play only the script with this number, and show what happens
    #[arg(long, value_name = "N")]
    script: Option<u64>,
    /// Only the packets, or only the real programs
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// The format of the summary; with `json`, the tests' output goes to standard error
    #[arg(long, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// A part of the comparison.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Generated packets, compared field by field
    Packets,
    /// The tests with real clients and servers, through each of the two
    Programs,
}

impl Options {
    fn wants(&self, part: Part) -> bool {
        match self.only {
            Some(only) => only == part,
            None => self.script.is_none() || part == Part::Packets,
        }
    }

    fn is_json(&self) -> bool {
        self.output == Format::Json
    }
}

/// Builds everything and compares the router with the kernel's own NAT. An unexplained difference or a failing test is
/// not an error, but changes the exit code.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    ensure_root("the comparison", "test-conformance")?;
    let mut output = File::from(stdout().as_fd().try_clone_to_owned()?);
    if options.is_json() {
        // The builds write to standard output as well.
        dup2_stdout(stderr()).context("cannot redirect standard output")?;
    }
    setup::ensure_complete(workspace)?;
    build::all(workspace, Profile::Debug)?;

    let mut report = Map::new();
    let mut succeeded = true;
    if options.wants(Part::Packets) {
        let (is_explained, packets) = compare_packets(workspace, options)?;
        succeeded &= is_explained;
        report.extend(packets.map(|packets| ("packets".to_owned(), packets)));
    }
    if options.wants(Part::Programs) {
        let results = DATAPLANES
            .map(|dataplane| run_programs(workspace, options, dataplane).map(|it| (dataplane, it)));
        let mut programs = Map::new();
        for result in results {
            let (dataplane, (passed, summary)) = result?;
            succeeded &= passed;
            if !options.is_json() {
                println!("real programs through {dataplane:14} {summary}");
            }
            programs.insert(dataplane.to_owned(), counts(&summary));
        }
        report.insert("programs".to_owned(), programs.into());
    }
    if options.is_json() {
        writeln!(output, "{:#}", Value::from(report))?;
    }
    Ok(exit_code(succeeded))
}

/// Returns whether every difference is explained, and with `--output json` the report. Otherwise the comparison prints
/// the report itself.
fn compare_packets(workspace: &Workspace, options: &Options) -> Result<(bool, Option<Value>)> {
    let Options { packets, seed, .. } = options;
    let words = "run --quiet --package egress-tests --bin conformance --";
    let cargo = workspace
        .cargo(&format!("{words} --packets {packets} --seed {seed}"))
        .args(options.family.iter().map(|it| format!("--family={it}")))
        .args(options.script.map(|it| format!("--script={it}")));
    let mut cargo = Command::from(cargo);
    if !options.is_json() {
        return Ok((cargo.status()?.success(), None));
    }
    let output = cargo
        .args(["--output", "json"])
        .stderr(Stdio::inherit())
        .output()?;
    let report = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("the comparison ended with {} and no report", output.status))?;
    Ok((output.status.success(), Some(report)))
}

/// Runs the tests with real traffic against a dataplane. Returns whether all passed, and the summary.
fn run_programs(
    workspace: &Workspace,
    options: &Options,
    dataplane: &str,
) -> Result<(bool, Summary)> {
    let cargo = workspace
        .cargo("test --package egress-tests --test redirect")
        .env(DATAPLANE_VARIABLE, dataplane);
    let (summary, status) = if options.is_json() {
        test::follow(cargo.into(), stderr())?
    } else {
        test::follow(cargo.into(), stdout())?
    };
    Ok((status.success() && summary.succeeded(), summary))
}

fn counts(summary: &Summary) -> Value {
    let mut counts = json!(summary);
    counts["skipped"] = summary.skips.len().into();
    counts
}
