//! `fuzz`: builds the fuzz targets for libFuzzer, and runs them within bounds.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use crate::build;
use crate::os::is_root;
use crate::process::CommandExt as _;
use crate::requirements::FUZZ_REQUIREMENTS;
use crate::setup;
use crate::workspace::Workspace;

/// The instrumentation that libFuzzer is guided by, as `cargo fuzz --sanitizer none` has it: with it a stable compiler will do.
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// The reader of `EgressRouter` resources
    Spec,
    /// Reading packets, and the arithmetic of NAT
    Packet,
    /// Sequences of packets through the kernel half (needs root)
    Stateful,
}

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Spec => "spec",
            Self::Packet => "packet",
            Self::Stateful => "stateful",
        }
    }

    /// Where to begin from, relative to the workspace's root.
    const fn seeds(self) -> &'static [&'static str] {
        match self {
            Self::Spec => &["docs/examples"],
            Self::Packet | Self::Stateful => &[],
        }
    }

    /// The longest input, in bytes.
    const fn max_len(self) -> u32 {
        match self {
            Self::Spec => 4096,
            Self::Packet => 2048,
            Self::Stateful => 1024,
        }
    }
}

/// How long each target runs: until either is reached.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Bounds {
    /// Iterations of each target
    #[arg(long, value_name = "NUMBER", default_value_t = 100_000)]
    runs: u64,

    /// Seconds for each target; 0 for any
    #[arg(long, value_name = "NUMBER", default_value_t = 60)]
    seconds: u64,

    /// What the random numbers begin with, to repeat a run
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u32,
}

/// Builds the targets and runs these, all for none.
///
/// # Errors
/// The build fails, or a target finds something: the input that does it is kept.
pub fn run(workspace: &Workspace, targets: &[Target], bounds: Bounds) -> Result<()> {
    setup::ensure_complete(workspace)?;
    setup::ensure_programs(FUZZ_REQUIREMENTS)?;
    build::kernel_half(workspace)?;
    let directory = workspace.target().join("fuzz");
    let host = host(workspace)?;
    println!("build    the fuzz targets, instrumented");
    workspace
        .cargo()
        .args(["build", "--package", "egress-fuzz", "--profile", "fuzz"])
        // Named, so that build scripts and macros are not instrumented.
        .args(["--target", &host, "--target-dir"])
        .arg(&directory)
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"))
        .env("EGRESS_ROUTER_BPF_OBJECT", workspace.object())
        .run()?;
    let binaries = directory.join(&host).join("fuzz");
    let targets = if targets.is_empty() {
        Target::value_variants()
    } else {
        targets
    };
    for target in targets {
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
    binaries: &std::path::Path,
    directory: &std::path::Path,
    bounds: Bounds,
) -> Result<()> {
    let name = target.name();
    let corpus = directory.join("corpus").join(name);
    let artifacts = directory.join("artifacts").join(name);
    for path in [&corpus, &artifacts] {
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    }
    println!("fuzz     {name}");
    let mut command = workspace.command(binaries.join(name));
    command
        .arg(&corpus)
        .args(target.seeds())
        .arg(format!("-runs={}", bounds.runs))
        .arg(format!("-max_total_time={}", bounds.seconds))
        .arg(format!("-seed={}", bounds.seed))
        .arg(format!("-max_len={}", target.max_len()))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        // Long inputs from the start: coverage, which would lead to them, is not seen of programs in the kernel.
        .arg("-len_control=0")
        .args(["-timeout=10", "-print_final_stats=1"]);
    if let Err(error) = command.run() {
        let kept = newest(&artifacts).map_or_else(
            || "no input was kept".to_owned(),
            |input| workspace.shown(&input).display().to_string(),
        );
        let program = workspace.shown(&binaries.join(name)).display().to_string();
        bail!("{error}\n{name} found something; to repeat it: {program} {kept}");
    }
    Ok(())
}

/// The file that was written last.
fn newest(directory: &std::path::Path) -> Option<PathBuf> {
    let entries = fs::read_dir(directory).ok()?.flatten();
    entries
        .max_by_key(|entry| {
            entry
                .metadata()
                .and_then(|metadata| metadata.modified())
                .ok()
        })
        .map(|entry| entry.path())
}

/// This machine, by the compiler's name for it.
fn host(workspace: &Workspace) -> Result<String> {
    let text = workspace.command("rustc").arg("-vV").read()?;
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc -vV names no host")
}
