//! `lint`: checks formatting, clippy, and on request the dependencies.

use anyhow::{Result, ensure};

use crate::build;
use crate::process::find_program;
use crate::workspace::Workspace;

/// Runs the checks up to the first that fails.
pub fn run(workspace: &Workspace, dependencies: bool) -> Result<()> {
    // rustup's profile `minimal` has neither of the two.
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        ensure!(
            workspace
                .cargo(subcommand)
                .arg("--version")
                .ignore_stderr()
                .read()
                .is_ok(),
            "{component} is not installed: `rustup component add {component}`, or your \
             distribution's package of that name"
        );
    }

    println!("lint     formatting");
    workspace.cargo("fmt --all --check").run()?;

    // Before the rest, because userspace embeds the object.
    println!("lint     the kernel half, with clippy for the BPF target");
    build::kernel_half(workspace)?;
    build::lint_for_bpf(workspace)?;

    println!("lint     everything else, with clippy");
    workspace
        .cargo_for_host("clippy")
        .args(["--all-targets", "--", "-Dwarnings"])
        .run()?;
    // Without the fuzzing engine, because its C++ takes long to compile.
    workspace
        .cargo("clippy --package egress-fuzz --no-default-features -- -Dwarnings")
        .run()?;

    if dependencies {
        println!("lint     dependencies");
        ensure!(
            find_program("cargo-deny").is_some(),
            "cargo-deny is not installed: `cargo install cargo-deny --locked`"
        );
        workspace.cargo("deny check").run()?;
    }
    println!("All checks passed.");
    Ok(())
}
