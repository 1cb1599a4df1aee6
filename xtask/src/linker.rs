//! bpf-linker, which joins LLVM bitcode into a BPF object.
//!
//! It must be built against the LLVM of the compiler whose bitcode it reads, so the project builds its own and ignores
//! any in `PATH`.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Result, ensure};

use crate::process::{answer, cmd, path_with, sh};
use crate::requirements::version_in;
use crate::workspace::Workspace;

/// The version that the pinned aya crates are tested with.
pub const VERSION: &str = "0.13.0";

pub fn program(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("bin/bpf-linker")
}

/// Returns `true` if our linker was built against this LLVM, has the right version and runs.
pub fn is_ready(workspace: &Workspace, major: u64, prefix: &Path) -> bool {
    let stamp = fs::read_to_string(stamp_path(workspace));
    stamp.is_ok_and(|stamp| stamp == stamp_text(major, prefix)) && runs(&program(workspace))
}

/// Builds the linker against the LLVM of this major version in `prefix`.
pub fn install(workspace: &Workspace, major: u64, prefix: &Path) -> Result<()> {
    let started = Instant::now();
    println!("install  bpf-linker {VERSION} for LLVM {major}, which takes a minute or two");
    let (stamp, tools) = (stamp_path(workspace), workspace.tools());
    sh().remove_path(&stamp)?;
    workspace
        .cargo("install bpf-linker --locked --force --no-default-features")
        .args([
            "--version",
            VERSION,
            "--features",
            &format!("llvm-{major}"),
            "--root",
        ])
        .arg(&tools)
        .env("LLVM_PREFIX", prefix)
        // Otherwise cargo warns that the directory is not in PATH.
        .env("PATH", path_with([tools.join("bin")]))
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET_DIR")
        .env_remove("CARGO_BUILD_TARGET")
        .run()?;
    let program = program(workspace);
    ensure!(
        runs(&program),
        "{} was built, but `{0} --version` does not print {VERSION}",
        program.display()
    );
    sh().write_file(&stamp, stamp_text(major, prefix))?;
    println!(
        "ok       bpf-linker {VERSION} built in {} s",
        started.elapsed().as_secs()
    );
    Ok(())
}

fn runs(program: &Path) -> bool {
    version_in(&answer(cmd!(sh(), "{program} --version"))).as_deref() == Some(VERSION)
}

fn stamp_path(workspace: &Workspace) -> PathBuf {
    workspace.tools().join("bpf-linker.stamp")
}

fn stamp_text(major: u64, prefix: &Path) -> String {
    format!(
        "bpf-linker {VERSION}\nLLVM {major} in {}\n",
        prefix.display()
    )
}
