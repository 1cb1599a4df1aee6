//! The place and time of a run.

use std::fmt;
use std::fs;
use std::process::Command;
use std::thread;
use std::time::SystemTime;

use nix::sys::utsname::uname;
use serde::Serialize;

/// The conditions under which the figures were measured.
#[derive(Debug, Serialize)]
pub struct Machine {
    /// The processor's model.
    pub cpu: String,
    /// How many CPUs this process may use.
    pub cpus: usize,
    /// Whether it is a virtual machine, according to the processor.
    pub is_virtual: bool,
    /// The kernel's release.
    pub kernel: String,
    /// The UTC time.
    pub date: String,
    /// The git description of what was built.
    pub commit: String,
    /// The load average over the last minute, before the run. The machine should be idle.
    pub load: String,
}

impl Machine {
    /// The current machine and time. Unknown values are `unknown`.
    pub fn this() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(name))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown".to_owned());
        Self {
            cpu: or_unknown(field("model name").or_else(|| field("CPU part"))),
            cpus: thread::available_parallelism().map_or(1, usize::from),
            is_virtual: field("flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            kernel: or_unknown(
                uname()
                    .ok()
                    .map(|name| name.release().to_string_lossy().into_owned()),
            ),
            date: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            commit: or_unknown(commit()),
            load: or_unknown(load()),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_virtual { ", virtual" } else { "" };
        let Self {
            cpu,
            cpus,
            kernel,
            date,
            commit,
            load,
            ..
        } = self;
        write!(
            f,
            "{cpu}, {cpus} CPUs{kind} · Linux {kernel} · {date} · commit {commit} · load {load}"
        )
    }
}

fn commit() -> Option<String> {
    let output = Command::new("git")
        .args(["describe", "--always", "--dirty", "--abbrev=12"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}

fn load() -> Option<String> {
    let averages = fs::read_to_string("/proc/loadavg").ok()?;
    averages.split(' ').next().map(str::to_owned)
}
