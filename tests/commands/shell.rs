//! Runs the binary to its end and reads its output.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use egress_tests::{Namespace, PATIENCE, eventually, router};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

const POLL: Duration = Duration::from_millis(10);

/// The result of a command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Finished {
    /// The standard output of a command that succeeded and wrote nothing to standard error.
    pub fn success(self) -> Result<String> {
        ensure!(
            self.code == Some(0) && self.stderr.is_empty(),
            "expected success: {self:?}"
        );
        Ok(self.stdout)
    }

    /// Checks that the command failed with this code and that its standard error contains all of `words`.
    pub fn failure(&self, code: i32, words: &[&str]) -> Result<()> {
        ensure!(
            self.code == Some(code),
            "expected exit code {code}: {self:?}"
        );
        for word in words {
            ensure!(
                self.stderr.contains(word),
                "expected {word:?} on standard error: {self:?}"
            );
        }
        ensure!(
            self.stdout.is_empty(),
            "a failed command should print nothing on standard output: {self:?}"
        );
        Ok(())
    }
}

/// Runs `egress-router` with these arguments to its end.
pub fn egress_router<A: AsRef<OsStr>>(namespace: &Namespace, arguments: &[A]) -> Result<Finished> {
    finish(namespace.command(router::binary()?).args(arguments))
}

/// Runs `egress-router` with these arguments and `--output json`.
pub fn json(namespace: &Namespace, arguments: &[&str]) -> Result<Value> {
    let arguments = [arguments, &["--output", "json"]].concat();
    let text = egress_router(namespace, &arguments)?.success()?;
    serde_json::from_str(&text).with_context(|| format!("{arguments:?} printed {text}"))
}

/// Runs a command to its end. Its standard input is empty unless the caller has set one.
///
/// # Errors
/// When the command has not ended after [`PATIENCE`]; it is then killed.
pub fn finish(command: &mut Command) -> Result<Finished> {
    // Files never fill up like pipes, so nothing has to read them meanwhile.
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = command
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()
        .with_context(|| format!("starting {command:?}"))?;
    let status = wait(&mut child)?;
    let finished = Finished {
        code: status.and_then(|status| status.code()),
        stdout: read(&mut stdout)?,
        stderr: read(&mut stderr)?,
    };
    if status.is_none() {
        bail!("{command:?} had not ended after {PATIENCE:?}: {finished:?}");
    }
    Ok(finished)
}

/// Waits for a child to end. Returns `None` if it had to be killed.
pub fn wait(child: &mut Child) -> Result<Option<std::process::ExitStatus>> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

fn read(file: &mut File) -> Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    Ok(text)
}

/// A router started through another program. It is killed on drop.
#[derive(Debug)]
pub struct Started {
    child: Child,
    stderr: File,
}

impl Started {
    /// Starts a command and waits until the router's log says that it is ready.
    pub fn new(command: &mut Command) -> Result<Self> {
        let stderr = tempfile::NamedTempFile::new()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.reopen()?)
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let mut started = Self {
            child,
            stderr: stderr.into_file(),
        };
        eventually("the router is ready", || {
            let log = started.log()?;
            if let Some(status) = started.child.try_wait()? {
                bail!("ended before it was ready ({status}):\n{log}");
            }
            Ok(log.contains("ready: ").then_some(()))
        })?;
        Ok(started)
    }

    /// The log so far.
    pub fn log(&mut self) -> Result<String> {
        read(&mut self.stderr)
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends SIGTERM and waits for the router to end.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(self.child.id().try_into()?), Signal::SIGTERM)?;
        eventually("it ends", || Ok(self.child.try_wait()?.map(|_| ())))
    }

    /// Sends SIGKILL and waits for the router to end.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

/// A standard output whose reader has gone, like that of `egress-router flows | head -1`.
pub fn closed_pipe() -> Result<Stdio> {
    let (reader, writer) = std::io::pipe()?;
    drop(reader);
    Ok(writer.into())
}

/// The number at a JSON pointer (RFC 6901).
pub fn number(value: &Value, pointer: &str) -> Result<u64> {
    value
        .pointer(pointer)
        .and_then(Value::as_u64)
        .with_context(|| format!("no number at {pointer} of {value:#}"))
}

/// The string at a JSON pointer.
pub fn string<'v>(value: &'v Value, pointer: &str) -> Result<&'v str> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .with_context(|| format!("no string at {pointer} of {value:#}"))
}

pub fn array(value: &Value) -> Result<&[Value]> {
    let elements = value.as_array().map(Vec::as_slice);
    elements.with_context(|| format!("not an array: {value:#}"))
}

/// The keys of a JSON object.
pub fn keys(value: &Value) -> BTreeSet<&str> {
    value
        .as_object()
        .into_iter()
        .flat_map(|members| members.keys().map(String::as_str))
        .collect()
}
