//! A router pod whose dataplane is pinned, and whose spec is a file that changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use aya::maps::{Array, Map, MapData};
use egress_common::InstanceInfo;
use egress_tests::{BpfFs, Lab, PATIENCE, RouterProcess, Spec, router};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

const POLL: Duration = Duration::from_millis(20);

/// Waits until it is so.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !is_so()? {
        ensure!(Instant::now() < deadline, "{what}: not after {PATIENCE:?}");
        thread::sleep(POLL);
    }
    Ok(())
}

/// A lab, and a router in it that may be started again.
pub struct Pod<'l> {
    process: Option<RouterProcess>,
    lab: &'l Lab,
    pins: BpfFs,
    /// Where in there.
    name: &'static str,
    files: TempDir,
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        if let Some(process) = &self.process {
            eprintln!("the router's log:\n{}", process.log());
        }
    }
}

impl<'l> Pod<'l> {
    /// Starts a router by the lab's rules for both families, with these options as well.
    pub fn start_in(lab: &'l Lab, options: &[&str]) -> Result<Self> {
        let mut pod = Self::new(lab)?;
        pod.start(options)?;
        Ok(pod)
    }

    /// A pod in which no router was started yet.
    pub fn new(lab: &'l Lab) -> Result<Self> {
        let pod = Self {
            process: None,
            lab,
            pins: BpfFs::new()?,
            name: "router",
            files: tempfile::tempdir()?,
        };
        pod.write_spec(&Spec::dual_stack().yaml())?;
        Ok(pod)
    }

    /// Where the dataplane is pinned.
    pub fn pin_path(&self) -> PathBuf {
        self.pins.join(self.name)
    }

    /// Keeps the dataplane of the next router in another place.
    pub const fn pin_elsewhere(&mut self, name: &'static str) {
        self.name = name;
    }

    /// The spec's file.
    pub fn spec(&self) -> PathBuf {
        self.files.path().join("router.yaml")
    }

    /// Replaces the spec's file, as a whole.
    pub fn write_spec(&self, text: &str) -> Result<()> {
        let next = self.files.path().join("next.yaml");
        fs::write(&next, text)?;
        fs::rename(next, self.spec()).context("replacing the spec")
    }

    /// Starts the router, with these options as well.
    pub fn start(&mut self, options: &[&str]) -> Result<()> {
        self.start_program(&router::binary()?, options)
    }

    /// Starts another program than the one that was built, with these options as well.
    pub fn start_program(&mut self, program: &Path, options: &[&str]) -> Result<()> {
        let mut arguments = vec!["run".into(), "--config".into(), self.spec().into()];
        arguments.extend(["--pin-path".into(), self.pin_path().into()]);
        arguments.extend(options.iter().map(Into::into));
        let process = RouterProcess::start_program(program, self.lab.router(), &arguments, "")?;
        self.process = Some(process);
        Ok(())
    }

    /// Starts the router, and kills it after a while, ready or not.
    pub fn start_and_kill(&mut self, after: Duration) -> Result<()> {
        let mut child = self
            .lab
            .router()
            .command(router::binary()?)
            .args(["run", "--config"])
            .arg(self.spec())
            .arg("--pin-path")
            .arg(self.pin_path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        thread::sleep(after);
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The running process.
    pub fn process(&self) -> Result<&RouterProcess> {
        self.process.as_ref().context("no router runs")
    }

    /// Ends it by a signal, and waits for that.
    pub fn end(&mut self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        let process = self.process.take().context("no router runs")?;
        process.stop()?;
        Ok(())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.process()?.id();
        kill(Pid::from_raw(id.try_into()?), signal).with_context(|| format!("sending {signal}"))
    }

    /// What a command says, by `--output json`.
    pub fn ask(&self, command: &str) -> Result<Value> {
        let arguments = [command, "--output", "json"];
        let text = self.lab.router().output(router::binary()?, arguments)?;
        serde_json::from_str(&text).with_context(|| format!("{command} printed {text}"))
    }

    /// Waits for these words in the log.
    pub fn wait_for_log(&self, words: &str) -> Result<()> {
        let process = self.process()?;
        eventually(words, || Ok(process.log().contains(words)))
    }

    /// Changes what is pinned of the instance.
    pub fn change_instance(&self, change: impl FnOnce(&mut InstanceInfo)) -> Result<()> {
        let data = MapData::from_pin(self.pin_path().join("INSTANCE"))?;
        let mut map = Array::<_, InstanceInfo>::try_from(Map::from_map_data(data)?)?;
        let mut instance = map.get(&0, 0)?;
        change(&mut instance);
        map.set(0, instance, 0)?;
        Ok(())
    }

    /// Waits until `status` says what is wanted.
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.ask("status")?;
            if is_it(&status) {
                return Ok(status);
            }
            if Instant::now() > deadline {
                anyhow::bail!("{what}: not after {PATIENCE:?}; status is {status:#}");
            }
            thread::sleep(POLL);
        }
    }

    /// Puts another spec in place, and waits until it is in force.
    pub fn reload(&self, text: &str) -> Result<()> {
        let applied = |status: &Value| status["reloads"]["applied"].as_u64();
        let before = applied(&self.ask("status")?);
        self.write_spec(text)?;
        self.signal(Signal::SIGHUP)?;
        self.wait_for("the new spec is in force", |status| {
            applied(status) > before
        })?;
        Ok(())
    }
}
