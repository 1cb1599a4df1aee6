//! `lint`: formatting, clippy, the compiler's warnings on the kernel half, and
//! on request the dependencies.

use anyhow::{Result, ensure};

use crate::build;
use crate::process::{CommandExt as _, find_program};
use crate::workspace::Workspace;

/// Runs every check; the first that complains ends it.
///
/// # Errors
/// A check complains, or its program is not installed.
pub fn run(workspace: &Workspace, dependencies: bool) -> Result<()> {
    require(workspace, "fmt", "rustfmt")?;
    require(workspace, "clippy", "clippy")?;

    println!("lint     formatting");
    workspace.cargo().args(["fmt", "--all", "--check"]).run()?;

    // First, because userspace embeds the object and clippy compiles userspace.
    println!("lint     the kernel half, with clippy for the BPF target");
    build::kernel_half(workspace)?;
    build::lint_for_bpf(workspace)?;

    println!("lint     everything else, with clippy");
    workspace
        .cargo()
        .args([
            "clippy",
            "--workspace",
            "--exclude",
            "egress-ebpf",
            "--exclude",
            "egress-fuzz",
            "--exclude",
            "egress-bench-ebpf",
            "--all-targets",
        ])
        .args(["--", "-Dwarnings"])
        .run()?;
    // Without the fuzzing engine, which is C++ and takes long to compile.
    workspace
        .cargo()
        .args([
            "clippy",
            "--package",
            "egress-fuzz",
            "--no-default-features",
        ])
        .args(["--", "-Dwarnings"])
        .run()?;

    if dependencies {
        println!("lint     dependencies");
        ensure!(
            find_program("cargo-deny").is_some(),
            "cargo-deny is not installed: `cargo install cargo-deny --locked`"
        );
        workspace.cargo().args(["deny", "check"]).run()?;
    }
    println!("Nothing to complain about.");
    Ok(())
}

/// A rustup with the profile `minimal` brings neither of the two.
fn require(workspace: &Workspace, subcommand: &str, component: &str) -> Result<()> {
    let there = workspace
        .cargo()
        .args([subcommand, "--version"])
        .read()
        .is_ok();
    ensure!(
        there,
        "{component} is not installed: `rustup component add {component}`, or your \
         distribution's package of that name"
    );
    Ok(())
}
