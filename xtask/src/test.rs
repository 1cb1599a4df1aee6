//! `test`: builds everything, runs every test of the workspace, and prints a summary.

use std::io::{BufRead as _, BufReader, IsTerminal, Read, Write, pipe, stdout};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context as _, Result};

use crate::build::{self, Profile};
use crate::process::{exit_code, path_with};
use crate::prometheus;
use crate::results::{Summary, read_cargo_line};
use crate::root::is_root;
use crate::setup;
use crate::workspace::Workspace;

/// Runs the tests. `arguments` are for every test binary, as after `cargo test --`. A failing test is not an error, but
/// changes the exit code. The last line of output is `N passed, N failed, N skipped`.
pub fn run(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    setup::ensure_complete(workspace)?;
    build::all(workspace, Profile::Debug)?;
    if !is_root() {
        println!("Not root: tests that need the kernel are skipped.");
    }

    let mut cargo = workspace
        .cargo_for_host("test")
        .args(["--no-fail-fast", "--"])
        .args(arguments);
    match prometheus::directory(workspace) {
        Ok(directory) => cargo = cargo.env("PATH", path_with(directory)),
        Err(error) => println!("No Prometheus, so its tests are skipped: {error:#}"),
    }
    let (summary, status) = follow(cargo.into(), stdout())?;

    println!();
    for skipped in &summary.skips {
        println!("skipped: {skipped}");
    }
    for failed in &summary.failures {
        println!("failed: {failed}");
    }
    if !status.success() && summary.failed == 0 {
        println!("cargo test did not succeed ({status}); its message is above");
    } else if !summary.ran_something() && summary.skips.is_empty() {
        println!("no test ran: does the filter name one?");
    } else if !summary.ran_something() {
        println!("no test ran: all were skipped, for the reasons above");
    }
    println!("{summary}");
    Ok(exit_code(status.success() && summary.succeeded()))
}

/// Runs `cargo test`, copies its output to `shown`, and summarizes it.
pub fn follow(mut cargo: Command, shown: impl Write + IsTerminal) -> Result<(Summary, ExitStatus)> {
    if shown.is_terminal() {
        cargo.env("CARGO_TERM_COLOR", "always");
    }
    // One pipe for both streams keeps the lines of cargo, libtest and the tests in order.
    let (output, input) = pipe().context("cannot make a pipe")?;
    cargo
        .stdout(input.try_clone().context("cannot share a pipe")?)
        .stderr(input);
    let mut child = cargo.spawn().context("cannot start cargo")?;
    // The command holds a writing end of the pipe, and the loop ends when all are closed.
    drop(cargo);

    let mut suites = Vec::new();
    for line in BufReader::new(Tee(output, shown)).split(b'\n') {
        let line = line.context("cannot copy the tests' output")?;
        read_cargo_line(&mut suites, &String::from_utf8_lossy(&line));
    }
    let status = child.wait().context("cannot wait for cargo")?;
    Ok((Summary::of(&suites), status))
}

/// A reader that copies what it reads to a writer at once, so that the name of a test that hangs is visible.
struct Tee<R, W>(R, W);

impl<R: Read, W: Write> Read for Tee<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.0.read(buffer)?;
        self.1.write_all(&buffer[..length])?;
        self.1.flush()?;
        Ok(length)
    }
}
