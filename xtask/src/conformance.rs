//! `test-conformance`: the router beside the kernel's own NAT, with generated packets and with real
//! programs.

use std::fs::File;
use std::io::{Read as _, Write as _, stderr, stdout};
use std::os::fd::AsFd as _;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use egress_tests::router::DATAPLANE_VARIABLE;
use nix::unistd::dup2_stdout;
use serde_json::{Map, Value, json};

use crate::build::{self, Profile};
use crate::os::is_root;
use crate::process::CommandExt as _;
use crate::setup;
use crate::summary::Summary;
use crate::test;
use crate::workspace::Workspace;

/// The values of the variable that names what redirects in the lab of the tests.
const DATAPLANES: [&str; 2] = ["egress-router", "nftables"];

/// What to compare, and how to tell.
#[derive(Args)]
pub struct Options {
    /// How many packets to send into each of the two
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    packets: u64,
    /// What the packets are made from: the same seed makes the same packets
    #[arg(long, default_value_t = 1, value_name = "S")]
    seed: u64,
    /// Only packets of this IP version
    #[arg(long)]
    family: Option<Family>,
    /// Play only the script of packets with this number, and tell what happens
    #[arg(long, value_name = "N")]
    script: Option<u64>,
    /// Only the packets, or only the real programs
    #[arg(long, value_name = "PART")]
    only: Option<Part>,
    /// How to write the summary
    #[arg(long, default_value = "text")]
    output: Format,
}

/// An IP version.
#[derive(Clone, Copy, ValueEnum)]
enum Family {
    /// IPv4
    #[value(name = "4")]
    V4,
    /// IPv6
    #[value(name = "6")]
    V6,
}

/// A part of the comparison.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Generated packets, compared field by field
    Packets,
    /// The tests with real clients and servers, through each of the two
    Programs,
}

/// How to write the summary.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs; what the tests write goes to standard error
    Json,
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

/// Builds everything and compares the router with the kernel's own NAT.
///
/// # Errors
/// Setup or a build fails, or this is not root. An unexplained difference and a failing test are
/// no errors but the exit code.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    ensure!(
        is_root(),
        "the comparison makes network namespaces and loads eBPF programs, which takes root: \
         run `sudo -E env \"PATH=$PATH\" cargo xtask test-conformance`"
    );
    let mut output = File::from(stdout().as_fd().try_clone_to_owned()?);
    if options.is_json() {
        // The builds have something to say as well.
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
    Ok(if succeeded {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Whether every difference is explained; and the report, where it is not for people, who have
/// seen it by then.
fn compare_packets(workspace: &Workspace, options: &Options) -> Result<(bool, Option<Value>)> {
    let mut cargo = workspace.cargo();
    cargo.args(["run", "--quiet", "--package", "egress-tests"]);
    cargo.args(["--bin", "conformance", "--"]);
    cargo.args(["--packets", &options.packets.to_string()]);
    cargo.args(["--seed", &options.seed.to_string()]);
    if let Some(family) = options.family {
        let name = match family {
            Family::V4 => "4",
            Family::V6 => "6",
        };
        cargo.args(["--family", name]);
    }
    if let Some(script) = options.script {
        cargo.args(["--script", &script.to_string()]);
    }
    if !options.is_json() {
        let status = cargo.status().with_context(|| cannot_start(&cargo))?;
        return Ok((status.success(), None));
    }

    cargo.args(["--output", "json"]).stdout(Stdio::piped());
    let mut child = cargo.spawn().with_context(|| cannot_start(&cargo))?;
    let mut text = String::new();
    if let Some(mut output) = child.stdout.take() {
        output.read_to_string(&mut text)?;
    }
    let status = child.wait()?;
    let report = serde_json::from_str(&text)
        .with_context(|| format!("the comparison ended with {status} and no report"))?;
    Ok((status.success(), Some(report)))
}

/// Runs the tests with real traffic against a dataplane; whether all passed, and how many did.
fn run_programs(
    workspace: &Workspace,
    options: &Options,
    dataplane: &str,
) -> Result<(bool, Summary)> {
    let mut cargo = workspace.cargo();
    cargo
        .args(["test", "--package", "egress-tests", "--test", "redirect"])
        .env(DATAPLANE_VARIABLE, dataplane);
    let (summary, status) = if options.is_json() {
        test::follow(cargo, stderr())?
    } else {
        test::follow(cargo, stdout())?
    };
    let passed = status.success() && summary.failed() == 0 && summary.ran_something();
    Ok((passed, summary))
}

fn counts(summary: &Summary) -> Value {
    json!({
        "passed": summary.passed(),
        "failed": summary.failed(),
        "skipped": summary.skips().len(),
        "failures": summary.failures(),
        "skips": summary.skips(),
    })
}

fn cannot_start(command: &Command) -> String {
    format!("cannot start `{}`", command.line())
}
