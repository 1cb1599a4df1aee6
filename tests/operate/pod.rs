//! A router pod with a pinned dataplane and a spec file that changes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::maps::{Array, Map, MapData};
use egress_common::InstanceInfo;
use egress_tests::{BpfFs, Lab, RouterProcess, Spec, eventually, router};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// A lab with a router that can be restarted.
pub struct Pod<'l> {
    process: Option<RouterProcess>,
    lab: &'l Lab,
    pins: BpfFs,
    /// The name of the pin directory below the lab's BPF file system.
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
    /// Starts a router with the lab's rules for both families and additional options.
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

    /// The directory in which the dataplane is pinned.
    pub fn pin_path(&self) -> PathBuf {
        self.pins.join(self.name)
    }

    /// Changes the name of the pin directory, for the next router.
    pub const fn pin_elsewhere(&mut self, name: &'static str) {
        self.name = name;
    }

    /// The path of the spec file.
    pub fn spec(&self) -> PathBuf {
        self.files.path().join("router.yaml")
    }

    /// Replaces the spec file atomically.
    pub fn write_spec(&self, text: &str) -> Result<()> {
        let next = self.files.path().join("next.yaml");
        fs::write(&next, text)?;
        fs::rename(next, self.spec()).context("replacing the spec")
    }

    /// Starts the router with additional options.
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

    /// Starts the router and kills it after a delay, ready or not.
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
        self.process.as_ref().context("no router is running")
    }

    /// Ends the process with a signal and waits for it.
    pub fn end(&mut self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        let process = self.process.take().context("no router is running")?;
        process.stop()?;
        Ok(())
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process()?.signal(signal)
    }

    /// The JSON output of a command.
    pub fn ask(&self, command: &str) -> Result<Value> {
        self.lab.ask(command)
    }

    /// Waits until the log contains `words`.
    pub fn wait_for_log(&self, words: &str) -> Result<()> {
        let process = self.process()?;
        eventually(words, || Ok(process.log().contains(words).then_some(())))
    }

    /// Changes the pinned `INSTANCE`.
    pub fn change_instance(&self, change: impl FnOnce(&mut InstanceInfo)) -> Result<()> {
        let data = MapData::from_pin(self.pin_path().join("INSTANCE"))?;
        let mut map = Array::<_, InstanceInfo>::try_from(Map::from_map_data(data)?)?;
        let mut instance = map.get(&0, 0)?;
        change(&mut instance);
        map.set(0, instance, 0)?;
        Ok(())
    }

    /// Waits until `is_it` accepts the output of `status`.
    pub fn wait_for(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Result<Value> {
        eventually(what, || Ok(Some(self.ask("status")?).filter(&is_it)))
            .with_context(|| format!("the status is {:#}", self.ask("status").unwrap_or_default()))
    }

    /// Replaces the spec and waits until it is in force.
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
