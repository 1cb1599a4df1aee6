//! `bench`: measures the router beside the kernel's own NAT.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::build::{self, Profile};
use crate::process::exit_code;
use crate::root::ensure_root;
use crate::setup;
use crate::workspace::Workspace;

/// The text below the options.
pub const HELP: &str = "\
Cases: flow, flows60k, program, sctp, stream, streams8, connections, rules2, rules2000
and, not with --quick: rules65535, latency-udp, latency-tcp, iperf3, wrk, flows1m, start, reload, memory

Examples:
  cargo xtask bench --quick
  cargo xtask bench --case flow --case latency-udp --rounds 48
  cargo xtask bench --full --save";

/// The options of `bench`.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// A first look: fewer and shorter rounds of fewer cases (under 3 minutes)
    #[arg(long, conflicts_with = "full")]
    quick: bool,

    /// All rounds of every case (under 20 minutes); the default
    #[arg(long)]
    full: bool,

    /// Only this case; may be given several times
    #[arg(long = "case", value_name = "CASE")]
    cases: Vec<String>,

    /// The number of rounds [default: 24, or 8 with --quick]
    #[arg(long, value_name = "NUMBER")]
    rounds: Option<usize>,

    /// The format of the results
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    output: String,

    /// Write JSON and plots to docs/benchmarks instead of target/benchmarks
    #[arg(long)]
    save: bool,
}

/// Builds the router and the benchmarks in release mode, and runs the benchmarks.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    ensure_root("a measurement", "bench")?;
    setup::ensure_complete(workspace)?;
    build::all(workspace, Profile::Release)?;
    let object = build::bench_programs(workspace)?;
    workspace
        .cargo("build --release --package egress-bench")
        .run()?;

    let directory = if options.save {
        workspace.root.join("docs/benchmarks")
    } else {
        workspace.target.join("benchmarks")
    };
    let mut bench = Command::from(workspace.command(workspace.target.join("release/egress-bench")));
    bench
        .arg("--object")
        .arg(object)
        .arg("--into")
        .arg(directory);
    bench.args(["--output", &options.output]);
    bench.args(options.quick.then_some("--quick"));
    bench.args(options.cases.iter().flat_map(|case| ["--case", case]));
    bench.args(
        options
            .rounds
            .iter()
            .map(|rounds| format!("--rounds={rounds}")),
    );
    Ok(exit_code(bench.status()?.success()))
}
