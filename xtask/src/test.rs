//! `test`: builds everything, runs every test of the workspace, and sums up.

use std::io::{IsTerminal, Read as _, Write, pipe, stdout};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context as _, Result};

use crate::build::{self, Profile};
use crate::os::is_root;
use crate::process::{CommandExt as _, path_with};
use crate::prometheus;
use crate::setup;
use crate::summary::Summary;
use crate::workspace::Workspace;

/// Runs the tests; `arguments` go to every test binary, as behind `cargo test --`.
///
/// The last line that is written is `N passed, N failed, N skipped`.
///
/// # Errors
/// Setup or a build fails. A failing test is no error but the exit code.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    setup::ensure_complete(workspace)?;
    build::all(workspace, Profile::Debug)?;
    if !is_root() {
        println!("Not root: the tests that need the kernel will be skipped.");
    }

    let mut cargo = workspace.cargo();
    cargo.args([
        "test",
        "--workspace",
        "--exclude",
        "egress-ebpf",
        "--exclude",
        "egress-fuzz",
        "--exclude",
        "egress-bench-ebpf",
        "--no-fail-fast",
        "--",
    ]);
    cargo.args(arguments);
    match prometheus::directory(workspace) {
        Ok(Some(directory)) => {
            cargo.env("PATH", path_with(&directory));
        }
        Ok(None) => {}
        Err(error) => println!("No Prometheus, so its tests will be skipped: {error:#}"),
    }
    let (summary, status) = follow(cargo, stdout())?;

    println!();
    for skipped in summary.skips() {
        println!("skipped: {skipped}");
    }
    for failed in summary.failures() {
        println!("failed: {failed}");
    }
    if !status.success() && summary.failed() == 0 {
        println!("cargo test did not succeed ({status}); its message is above");
    } else if !summary.ran_something() && summary.skips().is_empty() {
        println!("no test ran: does the filter name one?");
    } else if !summary.ran_something() {
        println!("no test ran: each was skipped, for the reason given above");
    }
    println!("{summary}");
    let succeeded = status.success() && summary.failed() == 0 && summary.ran_something();
    Ok(if succeeded {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs `cargo test`, passes on to `shown` what it writes, and sums that up.
///
/// # Errors
/// It cannot be started, or its output not be passed on.
pub fn follow(
    mut cargo: Command,
    mut shown: impl Write + IsTerminal,
) -> Result<(Summary, ExitStatus)> {
    if shown.is_terminal() {
        cargo.env("CARGO_TERM_COLOR", "always");
    }
    // One pipe for both streams keeps cargo's `Running …`, libtest's results
    // and the tests' own lines in order.
    let (mut output, input) = pipe().context("cannot make a pipe")?;
    cargo
        .stdout(input.try_clone().context("cannot share a pipe")?)
        .stderr(input);
    let mut child = cargo
        .spawn()
        .with_context(|| format!("cannot start `{}`", cargo.line()))?;
    // The command holds the pipe's writing end, and its end is what ends the loop.
    drop(cargo);

    let mut summary = Summary::default();
    let mut line = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        let length = output
            .read(&mut chunk)
            .context("cannot read the tests' output")?;
        if length == 0 {
            break;
        }
        // Passed on at once, so that the name of a test that hangs is seen.
        shown
            .write_all(&chunk[..length])
            .and_then(|()| shown.flush())?;
        for &byte in &chunk[..length] {
            if byte == b'\n' {
                summary.read_line(&String::from_utf8_lossy(&line));
                line.clear();
            } else {
                line.push(byte);
            }
        }
    }
    summary.read_line(&String::from_utf8_lossy(&line));
    let status = child.wait().context("cannot wait for cargo")?;
    summary.finish();
    Ok((summary, status))
}
