//! `fuzz`: builds the fuzz targets for libFuzzer, and runs them within bounds.

use std::fs;
use std::path::Path;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::build;
use crate::process::sh;
use crate::requirements::REQUIREMENTS;
use crate::root::is_root;
use crate::setup;
use crate::workspace::Workspace;

/// The instrumentation for libFuzzer, as of `cargo fuzz --sanitizer none`, which a stable compiler supports.
const FLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    "-Ccodegen-units=1",
];

/// A fuzz target.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The parser of `EgressRouter` resources
    Spec,
    /// The parsers of packets, and the arithmetic of NAT
    Packet,
    /// Sequences of packets through the kernel half (needs root)
    Stateful,
}

impl Target {
    /// Its name, the maximum length of an input in bytes, and a directory of initial inputs.
    const fn properties(self) -> (&'static str, u32, Option<&'static str>) {
        match self {
            Self::Spec => ("spec", 4096, Some("docs/examples")),
            Self::Packet => ("packet", 2048, None),
            Self::Stateful => ("stateful", 1024, None),
        }
    }
}

/// The bounds of each target, which runs until it reaches one of them.
#[derive(Clone, Copy, clap::Args)]
pub struct Bounds {
    /// Iterations of each target
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000)]
    runs: u64,

    /// Seconds for each target; 0 for no limit
    #[arg(long, value_name = "NUMBER", default_value_t = 60)]
    seconds: u64,

    /// The seed of random numbers, to repeat a run
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u32,
}

/// Builds all targets and runs the given ones, or all if none are given. An error names the failing input.
pub fn run(workspace: &Workspace, targets: &[Target], bounds: Bounds) -> Result<()> {
    setup::ensure_complete(workspace)?;
    setup::ensure_programs(&REQUIREMENTS.fuzz)?;
    build::kernel_half(workspace)?;
    let directory = workspace.target.join("fuzz");
    let host = rustc_version::VersionMeta::for_command(workspace.command("rustc").into())?.host;
    println!("build    the fuzz targets, instrumented");
    workspace
        .cargo("build --package egress-fuzz --profile fuzz")
        // With --target, build scripts and macros are not instrumented.
        .args(["--target", &host, "--target-dir"])
        .arg(&directory)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        .env("EGRESS_ROUTER_BPF_OBJECT", workspace.object())
        .run()?;
    let binaries = directory.join(&host).join("fuzz");
    let all = Target::value_variants();
    for target in if targets.is_empty() { all } else { targets } {
        if *target == Target::Stateful && !is_root() {
            println!("skipped: stateful: needs root, to run programs in the kernel");
            continue;
        }
        fuzz(workspace, *target, &binaries, &directory, bounds)?;
    }
    Ok(())
}

fn fuzz(
    workspace: &Workspace,
    target: Target,
    binaries: &Path,
    directory: &Path,
    Bounds {
        runs,
        seconds,
        seed,
    }: Bounds,
) -> Result<()> {
    let (name, max_len, seeds) = target.properties();
    let (corpus, artifacts) = (
        directory.join("corpus").join(name),
        directory.join("artifacts").join(name),
    );
    for path in [&corpus, &artifacts] {
        sh().create_dir(path)?;
    }
    println!("fuzz     {name}");
    let program = binaries.join(name);
    // Long inputs from the start (-len_control=0), because the kernel's programs have no coverage that would lead to
    // them.
    let options = format!(
        "-runs={runs} -max_total_time={seconds} -seed={seed} -max_len={max_len} -len_control=0 -timeout=10 \
         -print_final_stats=1"
    );
    let fuzzing = workspace
        .command(&program)
        .arg(&corpus)
        .args(seeds)
        .args(options.split(' '));
    if let Err(error) = fuzzing
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        .run()
    {
        let files = fs::read_dir(&artifacts)?
            .flatten()
            .map(|entry| entry.path());
        let newest = files.max_by_key(|file| file.metadata().and_then(|it| it.modified()).ok());
        let kept = newest.map_or("no input was kept".to_owned(), |it| {
            workspace.shown(&it).to_string()
        });
        bail!(
            "{error}\n{name} failed; to repeat it: {} {kept}",
            workspace.shown(&program)
        );
    }
    Ok(())
}
