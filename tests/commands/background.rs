//! Commands that run until they are interrupted.

use std::fs;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use egress_tests::{Lab, eventually, router};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// A command that runs until it is interrupted.
pub struct Background {
    child: Child,
    output: tempfile::NamedTempFile,
}

impl Background {
    pub fn start(lab: &Lab, arguments: &[&str]) -> Result<Self> {
        let output = tempfile::NamedTempFile::new()?;
        let mut command = lab.router().command(router::binary()?);
        let child = command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(output.reopen()?)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        Ok(Self { child, output })
    }

    /// The file that receives its standard output.
    pub fn path(&self) -> &Path {
        self.output.path()
    }

    /// The complete lines printed so far.
    pub fn lines(&self) -> Result<Vec<String>> {
        lines(self.path())
    }

    /// The exit status, if the command has ended.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Interrupts the command with SIGINT, like Ctrl-C, and returns its exit code.
    pub fn interrupt(&mut self) -> Result<Option<i32>> {
        kill(Pid::from_raw(self.child.id().try_into()?), Signal::SIGINT)?;
        eventually("the command ends", || Ok(self.child.try_wait()?)).map(|status| status.code())
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn lines(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path)?;
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    Ok(complete.lines().map(ToOwned::to_owned).collect())
}
