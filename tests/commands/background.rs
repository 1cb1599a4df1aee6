//! Commands that go on until they are told to end.

use std::fs;
use std::path::Path;
use std::process::{Child, ExitStatus, Stdio};

use anyhow::{Context as _, Result};
use egress_tests::{Lab, router};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::shell::eventually;

/// A command that goes on until it is told to end.
pub struct Background {
    child: Child,
    output: tempfile::NamedTempFile,
}

impl Background {
    /// Starts `egress-router` with these arguments in the router pod.
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

    /// The file that has its standard output.
    pub fn path(&self) -> &Path {
        self.output.path()
    }

    /// The complete lines that it has printed.
    pub fn lines(&self) -> Result<Vec<String>> {
        lines(self.path())
    }

    /// How it has ended, if it has.
    pub fn try_wait(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ends it by SIGINT, as a person does.
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

/// The complete lines of a file.
pub fn lines(path: &Path) -> Result<Vec<String>> {
    let text = fs::read_to_string(path)?;
    let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
    Ok(complete.lines().map(ToOwned::to_owned).collect())
}
