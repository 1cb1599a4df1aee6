//! `egress-router` in the lab's router pod.

use std::env;
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::PATIENCE;
use crate::namespace::Namespace;
use crate::nftables;
use crate::spec::Spec;
use crate::topology::Lab;

/// The variable that names the binary to start, instead of the one built with the tests.
pub const BINARY_VARIABLE: &str = "EGRESS_ROUTER_BIN";
/// The variable that names the dataplane to test; see [`Dataplane`].
pub const DATAPLANE_VARIABLE: &str = "EGRESS_TEST_DATAPLANE";

/// How long a router may take to end after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(5);

/// What redirects the traffic in the router pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dataplane {
    /// The `egress-router` binary.
    EgressRouter,
    /// The kernel's own NAT; see [`nftables::start`].
    Nftables,
}

impl Dataplane {
    /// The dataplane that `EGRESS_TEST_DATAPLANE` names: `egress-router` (the default) or `nftables`.
    pub fn from_env() -> Result<Self> {
        match env::var_os(DATAPLANE_VARIABLE)
            .as_deref()
            .and_then(|name| name.to_str())
        {
            None if env::var_os(DATAPLANE_VARIABLE).is_none() => Ok(Self::EgressRouter),
            Some("" | "egress-router") => Ok(Self::EgressRouter),
            Some("nftables") => Ok(Self::Nftables),
            _ => bail!("{DATAPLANE_VARIABLE}: expected egress-router or nftables"),
        }
    }
}

/// The `egress-router` binary: the one that `EGRESS_ROUTER_BIN` names, else the one in this executable's directory or a
/// directory above it (`target/<profile>/`).
pub fn binary() -> Result<PathBuf> {
    const NAME: &str = "egress-router";
    if let Some(path) = env::var_os(BINARY_VARIABLE) {
        return Ok(path.into());
    }
    let executable = env::current_exe().context("finding this executable")?;
    executable.ancestors().skip(1).map(|directory| directory.join(NAME)).find(|path| path.is_file())
        .with_context(|| {
            format!(
                "no {NAME} binary in or above the directory of {}: run `cargo xtask build`, or name one in {BINARY_VARIABLE}",
                executable.display()
            )
        })
}

/// The documentation's example spec, which has the rules [`crate::addresses::RULES`].
pub fn example_spec() -> PathBuf {
    example("egress-router.yaml")
}

/// The documentation's dual-stack example, which has a fallback for IPv4.
pub fn dual_stack_example() -> PathBuf {
    example("dual-stack.yaml")
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs/examples")
        .join(name)
}

/// The number of packets with an outcome, according to the output of `status`.
pub fn outcome(status: &Value, name: &str) -> Result<u64> {
    let outcomes = status["outcomes"].as_array().into_iter().flatten();
    outcomes
        .filter(|outcome| outcome["name"] == name)
        .find_map(|outcome| outcome["packets"].as_u64())
        .with_context(|| format!("no outcome {name} in {status:#}"))
}

impl Lab {
    /// Starts `egress-router run --config SPEC` in the router pod and waits until it is ready.
    /// The router is stopped when the result is dropped or the calling thread ends.
    /// It is stopped when the result is dropped, or when the calling thread ends.
    pub fn start_router(&self, spec: &Path) -> Result<RouterProcess> {
        let arguments = ["run".into(), "--config".into(), spec.as_os_str().to_owned()];
        RouterProcess::start(self, &arguments)
    }

    /// Like [`Lab::start_router`], with a spec built by the test.
    pub fn start_router_by(&self, spec: &Spec) -> Result<RouterProcess> {
        self.start_router_with(&spec.yaml(), &[])
    }

    /// Like [`Lab::start_router`], with the text of a spec and additional options.
    pub fn start_router_with(&self, spec: &str, options: &[&str]) -> Result<RouterProcess> {
        let arguments: Vec<_> = ["run", "--config", "-"]
            .iter()
            .chain(options)
            .map(Into::into)
            .collect();
        RouterProcess::start_in(self.router(), &arguments, spec)
    }

    /// The JSON output of an `egress-router` command with this name in the router pod.
    pub fn ask(&self, command: &str) -> Result<Value> {
        let arguments = [command, "--output", "json"];
        let text = self.router().output(binary()?, arguments)?;
        serde_json::from_str(&text).with_context(|| format!("{command} printed {text}"))
    }

    /// Makes the kernel of the router pod redirect instead.
    pub fn start_nftables(&self, spec: &Spec) -> Result<()> {
        nftables::start(self.router(), spec)
    }
}

/// A running `egress-router`. It is stopped on drop.
#[derive(Debug)]
pub struct RouterProcess {
    child: Child,
    log: Log,
    readers: Vec<JoinHandle<()>>,
}

impl RouterProcess {
    /// Starts the binary with these arguments in the router pod of `lab`, and waits for a log line whose message starts
    /// with `ready`.
    pub fn start(lab: &Lab, arguments: &[OsString]) -> Result<Self> {
        Self::start_in(lab.router(), arguments, "")
    }

    /// Like [`RouterProcess::start`], in any router pod and with `input` on standard input.
    pub fn start_in(pod: &Namespace, arguments: &[OsString], input: &str) -> Result<Self> {
        Self::start_program(&binary()?, pod, arguments, input)
    }

    /// Like [`RouterProcess::start_in`], with another binary, such as that of an earlier version.
    pub fn start_program(
        binary: &Path,
        pod: &Namespace,
        arguments: &[OsString],
        input: &str,
    ) -> Result<Self> {
        // The default pin path contains the spec's name, which labs running side by side share.
        let is_pinned = arguments
            .iter()
            .any(|it| it == "--pin-path" || it == "--keep");
        let mut child = pod
            .command(binary)
            .args(arguments)
            .args((!is_pinned).then_some("--no-pin"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", binary.display()))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A router that does not read its standard input says why in its log.
            let _ = stdin.write_all(input.as_bytes());
        }
        let log = Log::default();
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|stdout| log.follow(stdout)));
        readers.extend(child.stderr.take().map(|stderr| log.follow(stderr)));
        let mut process = Self {
            child,
            log,
            readers,
        };
        process.wait_until_ready()?;
        Ok(process)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self
            .log
            .wait_for_line(|line| message(line).starts_with("ready"), POLL)
        {
            if let Some(status) = self.child.try_wait()? {
                self.join_readers();
                bail!(
                    "egress-router ended before it was ready ({status}):\n{}",
                    self.log.text()
                );
            }
            if Instant::now() > deadline {
                bail!(
                    "egress-router not ready after {PATIENCE:?}:\n{}",
                    self.log.text()
                );
            }
        }
        Ok(())
    }

    /// The process ID.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let process = Pid::from_raw(self.child.id().try_into()?);
        kill(process, signal).with_context(|| format!("sending {signal} to egress-router"))
    }

    /// The process's standard output and standard error so far.
    pub fn log(&self) -> String {
        self.log.text()
    }

    /// Sends SIGHUP, so that the router reads its spec again, and waits until the new rules are in force.
    ///
    /// `change` replaces the spec file. It should rename a new file into place: the router refuses a half-written one.
    pub fn reload(&self, change: impl FnOnce() -> Result<()>) -> Result<()> {
        let before = self.log.lines().len();
        change()?;
        self.signal(Signal::SIGHUP)?;
        let outcome =
            |line: &str| line.contains("rules are in force") || line.contains("is refused");
        if !self.log.wait_for_line_after(before, outcome, PATIENCE) {
            bail!("no reload within {PATIENCE:?}:\n{}", self.log.text());
        }
        let lines = self.log.lines();
        let refusal = lines[before..]
            .iter()
            .find(|line| line.contains("is refused"));
        refusal.map_or(Ok(()), |line| bail!("{line}"))
    }

    /// Stops the process with SIGSTOP until the result is dropped. Whatever happens meanwhile is the kernel half's
    /// work.
    pub fn suspend(&self) -> Result<Suspended<'_>> {
        self.signal(Signal::SIGSTOP)?;
        Ok(Suspended(self))
    }

    /// Sends SIGTERM and waits for the process to end.
    ///
    /// # Errors
    /// When it has not ended after 5 seconds; it is then killed.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.terminate()
    }

    fn terminate(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                self.join_readers();
                return Ok(status);
            }
            thread::sleep(POLL);
        }
        self.child.kill()?;
        self.child.wait()?;
        self.join_readers();
        bail!(
            "egress-router had not ended {GRACE:?} after SIGTERM:\n{}",
            self.log.text()
        )
    }

    fn join_readers(&mut self) {
        for reader in self.readers.drain(..) {
            // A reader that panicked has lost some of the log; the rest is kept.
            let _ = reader.join();
        }
    }
}

impl Drop for RouterProcess {
    fn drop(&mut self) {
        if let Err(error) = self.terminate() {
            eprintln!("{error:#}");
        }
    }
}

/// A stopped router process. It continues when this is dropped.
#[derive(Debug)]
#[must_use = "the process continues when this is dropped"]
pub struct Suspended<'r>(&'r RouterProcess);

impl Drop for Suspended<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.0.signal(Signal::SIGCONT) {
            eprintln!("{error:#}");
        }
    }
}

/// A log line without its `[time level]` prefix.
fn message(line: &str) -> &str {
    line.strip_prefix('[')
        .and_then(|line| line.split_once("] "))
        .map_or(line, |(_, rest)| rest)
}

/// Lines from several pipes, in the order of their arrival.
#[derive(Clone, Debug, Default)]
struct Log(Arc<(Mutex<Vec<String>>, Condvar)>);

impl Log {
    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        self.lines().join("\n")
    }

    /// Reads `pipe` to its end on a new thread.
    fn follow(&self, pipe: impl Read + Send + 'static) -> JoinHandle<()> {
        let log = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                log.lines()
                    .push(String::from_utf8_lossy(&line).into_owned());
                log.0.1.notify_all();
            }
        })
    }

    fn wait_for_line(&self, wanted: impl Fn(&str) -> bool, timeout: Duration) -> bool {
        self.wait_for_line_after(0, wanted, timeout)
    }

    /// Waits for a line after the first `known` lines.
    fn wait_for_line_after(
        &self,
        known: usize,
        wanted: impl Fn(&str) -> bool,
        timeout: Duration,
    ) -> bool {
        let absent = |lines: &mut Vec<String>| !lines.iter().skip(known).any(|line| wanted(line));
        let (_lines, result) = self
            .0
            .1
            .wait_timeout_while(self.lines(), timeout, absent)
            .unwrap_or_else(PoisonError::into_inner);
        !result.timed_out()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_what_follows_the_time_and_level() {
        assert_eq!(
            message("[2025-01-01T00:00:00Z INFO ] ready: attached"),
            "ready: attached"
        );
        assert_eq!(message("ready"), "ready");
        assert_eq!(message("[not closed"), "[not closed");
    }
}
