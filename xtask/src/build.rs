//! `build-ebpf` and `build`: build the kernel half for the BPF target, and the rest for this machine.

use std::fs;
use std::io::{BufReader, IsTerminal as _, stderr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use cargo_metadata::Message;
use cargo_metadata::diagnostic::DiagnosticLevel;
use object::read::elf::ElfFile64;
use object::{Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, SymbolKind};

use crate::process::sh;
use crate::setup::{self, BpfToolchain};
use crate::toolchain::Route;
use crate::workspace::Workspace;

/// The package of the kernel half.
const PACKAGE: &str = "egress-ebpf";
/// The package of the benchmarks' BPF programs.
const BENCH_PACKAGE: &str = "egress-bench-ebpf";

/// The instruction set. Linux 5.10, the oldest supported kernel, has v3; v4 came with 6.6.
const CPU: &str = "v3";

/// Variables that would replace the compiler, the target or the flags that the kernel half needs.
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

/// A profile of cargo.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// `dev`, in `target/debug`.
    Debug,
    Release,
}

/// What cargo reported about a package.
#[derive(Default)]
struct Outcome {
    /// The linked object in cargo's target directory.
    artifact: Option<PathBuf>,
    /// The number of warnings about the package itself.
    warnings: usize,
}

/// Builds the kernel half and copies it to the path that userspace embeds.
pub fn kernel_half(workspace: &Workspace) -> Result<()> {
    build_for_bpf(workspace, PACKAGE, &workspace.object())
}

/// Builds the benchmarks' BPF programs and returns the path of their object.
pub fn bench_programs(workspace: &Workspace) -> Result<PathBuf> {
    let object = workspace.target.join("egress-bench.bpf.o");
    build_for_bpf(workspace, BENCH_PACKAGE, &object)?;
    Ok(object)
}

/// Builds a package for the BPF target and copies it to `object`.
fn build_for_bpf(workspace: &Workspace, package: &str, object: &Path) -> Result<()> {
    let toolchain = setup::bpf_toolchain(workspace)?;
    let cargo = cargo_for_bpf(
        workspace,
        &toolchain,
        package,
        "build",
        "json-render-diagnostics",
    );
    let Some(artifact) = follow(cargo, package)?.artifact else {
        bail!("cargo built {package} but reported no object: is its [[bin]] missing?");
    };
    install(workspace, &artifact, object)
}

/// Runs clippy on the packages for the BPF target. A warning is an error.
pub fn lint_for_bpf(workspace: &Workspace) -> Result<()> {
    let toolchain = setup::bpf_toolchain(workspace)?;
    let Some(clippy) = toolchain.compiler.clippy() else {
        let route = toolchain.compiler.route;
        bail!("{route} has no clippy: run `cargo xtask setup`");
    };
    let is_coloured = stderr().is_terminal();
    let format = if is_coloured {
        "json-diagnostic-rendered-ansi"
    } else {
        "json"
    };
    for package in [PACKAGE, BENCH_PACKAGE] {
        let mut cargo = cargo_for_bpf(workspace, &toolchain, package, "check", format);
        // `cargo clippy` sets this too, but to the clippy beside cargo instead of the one beside RUSTC.
        cargo.env("RUSTC_WORKSPACE_WRAPPER", &clippy);
        let warnings = follow(cargo, package)?.warnings;
        ensure!(
            warnings == 0,
            "{package} has {warnings} warning(s), shown above"
        );
    }
    Ok(())
}

/// Builds everything.
pub fn all(workspace: &Workspace, profile: Profile) -> Result<()> {
    kernel_half(workspace)?;
    let release = (profile == Profile::Release).then_some("--release");
    workspace.cargo("build").args(release).run()?;
    eprintln!("{}", workspace.shown(&binary(workspace, profile)));
    Ok(())
}

/// The path of the router's binary.
pub fn binary(workspace: &Workspace, profile: Profile) -> PathBuf {
    let is_debug = profile == Profile::Debug;
    let directory = if is_debug { "debug" } else { "release" };
    workspace.target.join(directory).join("egress-router")
}

/// Runs cargo, and shows the diagnostics that cargo did not show itself.
fn follow(mut cargo: Command, package: &str) -> Result<Outcome> {
    let mut child = cargo
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start cargo")?;
    let stdout = child
        .stdout
        .take()
        .context("cargo's standard output is not a pipe")?;
    let mut outcome = Outcome::default();
    let mut rendered = String::new();
    for message in Message::parse_stream(BufReader::new(stdout)) {
        match message.context("cannot read cargo's messages")? {
            // Warnings about the other packages are left to the host's compiler, because two versions may disagree on
            // an `#[expect]`.
            Message::CompilerMessage(it)
                if it.target.name == package || it.message.level == DiagnosticLevel::Error =>
            {
                outcome.warnings += usize::from(it.message.level == DiagnosticLevel::Warning);
                rendered.push_str(&it.message.rendered.unwrap_or_default());
            }
            Message::CompilerArtifact(it) if it.executable.is_some() => {
                outcome.artifact = it.executable.map(Into::into);
            }
            _ => {}
        }
    }
    let status = child.wait().context("cannot wait for cargo")?;
    // Only now, because cargo writes to standard error as well.
    eprint!("{rendered}");
    ensure!(
        status.success(),
        "{package} does not build (cargo: {status})"
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
    let compiler = &toolchain.compiler;
    let endianness = if cfg!(target_endian = "big") {
        "bpfeb"
    } else {
        "bpfel"
    };
    let flags = [
        "-Cdebuginfo=2".to_owned(),
        format!("-Clinker={}", toolchain.linker.display()),
        "-Clink-arg=--btf".to_owned(),
        // Otherwise LLVM calls a function for every copy and every zeroing of more than a word.
        "-Clink-arg=--disable-expand-memcpy-in-order".to_owned(),
        // rustc passes this to bpf-linker as `--cpu`.
        format!("-Ctarget-cpu={CPU}"),
    ];
    let arguments = format!(
        "{subcommand} --package {package} --profile ebpf --target {endianness}-unknown-none -Zbuild-std=core \
         --message-format {format} --target-dir"
    );
    let cargo = workspace
        .command(compiler.cargo())
        .args(arguments.split(' '))
        .arg(workspace.target.join("ebpf"));
    let mut cargo = Command::from(
        FOREIGN_VARIABLES
            .into_iter()
            .fold(cargo, xshell::Cmd::env_remove),
    );
    cargo
        .env("RUSTC", &compiler.rustc)
        // Empty instead of removed, which overrides the user's configuration as well.
        .env("RUSTC_WRAPPER", "")
        .env("RUSTC_WORKSPACE_WRAPPER", "")
        // Unlike RUSTFLAGS, this allows spaces in paths.
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    if compiler.route == Route::Distribution {
        // A stable compiler accepts -Zbuild-std only with this.
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    cargo
}

/// Checks the object, copies it to `object` and prints a summary.
fn install(workspace: &Workspace, artifact: &Path, object: &Path) -> Result<()> {
    let bytes = sh().read_binary_file(artifact)?;
    let programs = programs_in(&bytes).with_context(|| artifact.display().to_string())?;
    if !is_current(object, artifact, &bytes) {
        tag_target_directory(&workspace.target)?;
        let temporary = object.with_extension(format!("{}.tmp", std::process::id()));
        // Renamed into place, so that no build embeds half an object.
        sh().write_file(&temporary, &bytes)?;
        fs::rename(&temporary, object)?;
    }
    eprintln!(
        "{} ({} KiB, BTF, programs: {})",
        workspace.shown(object),
        bytes.len().div_ceil(1024),
        programs.join(", ")
    );
    Ok(())
}

/// Returns `true` if the copy is current. It then keeps its time stamp, so that userspace is not rebuilt.
fn is_current(copy: &Path, artifact: &Path, bytes: &[u8]) -> bool {
    let modified = |path: &Path| path.metadata().and_then(|it| it.modified()).ok();
    modified(copy) >= modified(artifact) && fs::read(copy).is_ok_and(|copy| copy == bytes)
}

/// Writes the tag of <https://bford.info/cachedir/>, by which the build script of `egress-userspace` finds the
/// directory. Cargo itself tags only a target directory that it created.
fn tag_target_directory(target: &Path) -> Result<()> {
    const TAG: &str = "Signature: 8a477f597d28d172789f06886806bc55\n# Cargo's target directory.\n";
    let tag = target.join("CACHEDIR.TAG");
    if !tag.exists() {
        sh().write_file(tag, TAG)?;
    }
    Ok(())
}

/// The names of the programs in an object, which must have BTF.
fn programs_in(object: &[u8]) -> Result<Vec<&str>> {
    let file = ElfFile64::<Endianness>::parse(object).context("is not a 64-bit ELF object")?;
    ensure!(
        file.section_by_name(".BTF")
            .is_some_and(|section| section.size() > 0),
        "has no .BTF section, which the kernel and bpftool need: it was not linked by \
         `bpf-linker --btf` or was compiled without debug information"
    );
    // Functions are in .text; each program has its own section.
    let programs = file.symbols().filter(|symbol| {
        let section = symbol
            .section_index()
            .and_then(|index| file.section_by_index(index).ok());
        let is_entry = section.is_some_and(|section| section.name() != Ok(".text"));
        is_entry && symbol.is_global() && symbol.kind() == SymbolKind::Text
    });
    let mut names: Vec<_> = programs.filter_map(|symbol| symbol.name().ok()).collect();
    names.sort_unstable();
    ensure!(!names.is_empty(), "has no program");
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_about_an_object_without_btf_names_the_section() {
        assert!(programs_in(b"not an object").is_err());
        let own = fs::read("/proc/self/exe").unwrap();
        let error = programs_in(&own).unwrap_err().to_string();
        assert!(error.contains("no .BTF section"), "{error}");
    }
}
