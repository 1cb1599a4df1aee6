//! `build-ebpf` and `build`: the kernel half for the BPF target, then the rest
//! for this machine.

use std::fs;
use std::io::{BufRead as _, BufReader, IsTerminal as _, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::object;
use crate::process::CommandExt as _;
use crate::setup::{self, BpfToolchain};
use crate::toolchain::Route;
use crate::workspace::Workspace;

/// The package of the kernel half.
const PACKAGE: &str = "egress-ebpf";

/// The package of the benchmarks' own programs for the kernel.
const BENCH_PACKAGE: &str = "egress-bench-ebpf";

/// What is compiled for the BPF target.
const BPF_PACKAGES: [&str; 2] = [PACKAGE, BENCH_PACKAGE];

/// Kernel 5.10 is the oldest that we load on, and its verifier knows the
/// instructions of v3; v4 came with 6.6.
const CPU: &str = "v3";

/// Variables that would put another compiler, target or flag in the place of
/// those that the kernel half needs.
const FOREIGN_VARIABLES: [&str; 8] = [
    "RUSTUP_TOOLCHAIN",
    "RUSTFLAGS",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_TARGET",
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET_DIR",
    "CARGO_BUILD_BUILD_DIR",
];

/// Builds for people or for tests.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Cargo's `dev`.
    Debug,
    /// Cargo's `release`.
    Release,
}

/// The part of cargo's JSON messages that is read here.
#[derive(Deserialize)]
#[serde(tag = "reason")]
enum Message {
    #[serde(rename = "compiler-message")]
    Diagnostic { message: Diagnostic, target: Target },
    #[serde(rename = "compiler-artifact")]
    Artifact { executable: Option<PathBuf> },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct Diagnostic {
    level: String,
    rendered: Option<String>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

/// What cargo told about a package.
struct Outcome {
    /// The linked object, in cargo's own place.
    artifact: Option<PathBuf>,
    /// How many warnings the compiler gave for the package itself.
    warnings: usize,
}

/// Builds the kernel half and puts it where userspace embeds it from.
///
/// # Errors
/// The toolchain is not complete, the build fails, or the object lacks BTF.
pub fn kernel_half(workspace: &Workspace) -> Result<()> {
    build_for_bpf(workspace, PACKAGE, &workspace.object())
}

/// Builds the benchmarks' own programs for the kernel, and says where they are.
///
/// # Errors
/// As [`kernel_half`].
pub fn bench_programs(workspace: &Workspace) -> Result<PathBuf> {
    let object = workspace.target().join("egress-bench.bpf.o");
    build_for_bpf(workspace, BENCH_PACKAGE, &object)?;
    Ok(object)
}

/// Builds a package for the BPF target and copies it to `object`.
fn build_for_bpf(workspace: &Workspace, package: &str, object: &Path) -> Result<()> {
    let toolchain = setup::bpf_toolchain(workspace)?;
    let mut cargo = cargo_for_bpf(
        workspace,
        &toolchain,
        package,
        "build",
        "json-render-diagnostics",
    );
    let Some(artifact) = follow(&mut cargo, package)?.artifact else {
        bail!("cargo built {package} without naming an object: has it lost its [[bin]]?");
    };
    install(workspace, &artifact, object)
}

/// Runs clippy over what is for the kernel, for the BPF target.
///
/// # Errors
/// The toolchain or its clippy is not there, or clippy complains.
pub fn lint_for_bpf(workspace: &Workspace) -> Result<()> {
    let toolchain = setup::bpf_toolchain(workspace)?;
    let Some(clippy) = toolchain.compiler.clippy() else {
        bail!(
            "{} has no clippy: run `cargo xtask setup`",
            toolchain.compiler.route
        );
    };
    let format = if stderr().is_terminal() {
        "json-diagnostic-rendered-ansi"
    } else {
        "json"
    };
    for package in BPF_PACKAGES {
        let mut cargo = cargo_for_bpf(workspace, &toolchain, package, "check", format);
        // As `cargo clippy` does, which takes the clippy beside cargo, not beside RUSTC.
        let outcome = follow(
            cargo.env("RUSTC_WORKSPACE_WRAPPER", clippy.as_path()),
            package,
        )?;
        ensure!(
            outcome.warnings == 0,
            "{package} has {} warning(s), shown above",
            outcome.warnings
        );
    }
    Ok(())
}

/// Builds everything.
///
/// # Errors
/// As [`kernel_half`], or the rest does not build.
pub fn all(workspace: &Workspace, profile: Profile) -> Result<()> {
    kernel_half(workspace)?;
    let mut cargo = workspace.cargo();
    cargo.arg("build");
    if profile == Profile::Release {
        cargo.arg("--release");
    }
    cargo.run()?;
    eprintln!("{}", workspace.shown(&binary(workspace, profile)).display());
    Ok(())
}

/// Where cargo puts the program.
pub fn binary(workspace: &Workspace, profile: Profile) -> PathBuf {
    let directory = match profile {
        Profile::Debug => "debug",
        Profile::Release => "release",
    };
    workspace.target().join(directory).join("egress-router")
}

/// Runs cargo, collects what matters, and shows what cargo did not show itself.
fn follow(cargo: &mut Command, package: &str) -> Result<Outcome> {
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{}`", cargo.line()))?;
    let stdout = child
        .stdout
        .take()
        .context("cargo's standard output is not a pipe")?;
    let mut outcome = Outcome {
        artifact: None,
        warnings: 0,
    };
    let mut rendered = String::new();
    for line in BufReader::new(stdout).lines() {
        match serde_json::from_str(&line.context("cannot read cargo's messages")?) {
            // A warning in a package that this machine's compiler sees as well is
            // left to that compiler: two versions may disagree on an `#[expect]`.
            Ok(Message::Diagnostic { message, target })
                if target.name == package || message.level == "error" =>
            {
                outcome.warnings += usize::from(message.level == "warning");
                rendered.push_str(&message.rendered.unwrap_or_default());
            }
            Ok(Message::Artifact {
                executable: Some(path),
            }) => outcome.artifact = Some(path),
            Ok(_) | Err(_) => {}
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    // Not before: cargo writes its own lines to the same place.
    eprint!("{rendered}");
    ensure!(
        status.success(),
        "{package} does not build (`{}`: {status})",
        cargo.line()
    );
    Ok(outcome)
}

fn cargo_for_bpf(
    workspace: &Workspace,
    toolchain: &BpfToolchain,
    package: &str,
    subcommand: &str,
    format: &str,
) -> Command {
    let target = if cfg!(target_endian = "big") {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    };
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        format!("-Clinker={}", toolchain.linker.display()),
        "-Clink-arg=--btf".to_owned(),
        // Else LLVM makes a call out of every copy and every zeroing of more than a word.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        // rustc hands this on to bpf-linker as `--cpu`.
        format!("-Ctarget-cpu={CPU}"),
    ];
    let mut cargo = workspace.command(toolchain.compiler.cargo());
    cargo
        .args([
            subcommand,
            "--package",
            package,
            "--profile",
            "ebpf",
            "--target",
            target,
        ])
        .args([
            "-Zbuild-std=core",
            "--message-format",
            format,
            "--target-dir",
        ])
        .arg(workspace.target().join("ebpf"));
    for variable in FOREIGN_VARIABLES {
        cargo.env_remove(variable);
    }
    cargo
        .env("RUSTC", &toolchain.compiler.rustc)
        // Empty, not removed: that overrules the user's configuration as well.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "")
        // Unlike RUSTFLAGS this survives a space in a path.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    if toolchain.compiler.route == Route::Distribution {
        // A released compiler takes -Zbuild-std only when told so.
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    cargo
}

/// Checks the object, copies it to its stated place and says what it is.
fn install(workspace: &Workspace, artifact: &Path, object: &Path) -> Result<()> {
    let programs = object::programs(artifact)?;
    if !is_current(object, artifact) {
        tag_target_directory(workspace.target())?;
        let temporary = object.with_extension(format!("{}.tmp", std::process::id()));
        // Renamed into place, so that nobody embeds half an object.
        fs::copy(artifact, &temporary)
            .and_then(|_| fs::rename(&temporary, object))
            .with_context(|| format!("cannot write {}", object.display()))?;
    }
    let size = object.metadata().map_or(0, |metadata| metadata.len());
    eprintln!(
        "{} ({} KiB, BTF, programs: {})",
        workspace.shown(object).display(),
        size.div_ceil(1024),
        programs.join(", ")
    );
    Ok(())
}

/// Whether the copy is of this artifact: an untouched copy keeps its time, so
/// that userspace is not built again for nothing.
fn is_current(copy: &Path, artifact: &Path) -> bool {
    let modified = |path: &Path| {
        path.metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    modified(copy) >= modified(artifact)
        && matches!((fs::read(copy), fs::read(artifact)), (Ok(copy), Ok(artifact)) if copy == artifact)
}

/// Cargo tags only a target directory that it made itself, and the build script
/// of `egress-userspace` finds the directory by that tag.
fn tag_target_directory(target: &Path) -> Result<()> {
    let tag = target.join("CACHEDIR.TAG");
    if tag.exists() {
        return Ok(());
    }
    // The signature is that of https://bford.info/cachedir/.
    fs::write(
        &tag,
        "Signature: 8a477f597d28d172789f06886806bc55\n# Cargo's target directory.\n",
    )
    .with_context(|| format!("cannot write {}", tag.display()))
}
