//! The first process of a guest: this same program, which runs the test binaries there.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use super::sabotage::Sabotage;

/// The subcommand that the kernel starts this program with.
pub const SUBCOMMAND: &str = "guest";
/// The name of the plan, in the guest's root.
pub const PLAN: &str = "plan.json";
/// The prefix of the guest's own lines among those of the test binaries.
pub const MARK: &str = "==guest== ";

/// The serial port for results; the first one is the kernel's console.
const RESULTS: &str = "/dev/ttyS1";
const FILE_SYSTEMS: [(&str, &str); 4] = [
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("bpf", "/sys/fs/bpf"),
];
const POLL: Duration = Duration::from_millis(20);

/// Kernel modules that the kernel does not load on demand.
const MODULES: [&str; 1] = ["sctp"];
/// The variables of all programs.
const ENVIRONMENT: [(&str, &str); 2] = [
    ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
    ("EGRESS_TEST_FRAMES", "3000"),
];

/// The work of a guest.
#[derive(Deserialize, Serialize)]
pub struct Plan {
    /// The binaries to run, in turn.
    pub suites: Vec<Suite>,
    /// The time limit of each suite.
    pub seconds: u64,
    /// What to break on purpose.
    pub sabotage: Option<Sabotage>,
}

/// A test binary to run.
#[derive(Deserialize, Serialize)]
pub struct Suite {
    /// Its name in the results.
    pub name: String,
    pub program: PathBuf,
    pub arguments: Vec<String>,
}

/// A report of a guest about its own work.
#[derive(Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It has booted.
    Booted { release: String },
    /// A suite begins.
    Begin { suite: String },
    /// A suite has ended.
    End {
        suite: String,
        /// In words, such as `exit status: 0`.
        status: String,
        seconds: f64,
    },
    /// Something went wrong outside the suites.
    Problem { message: String },
    /// All suites have run.
    Done,
}

fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.envs(ENVIRONMENT);
    command
}

/// Runs the plan and turns the machine off. Only for the first process of a guest.
pub fn run() -> Result<()> {
    let mut results = None;
    if let Err(error) = work(&mut results) {
        let message = format!("{error:#}");
        match &mut results {
            Some(file) => report(file, &Report::Problem { message })?,
            None => eprintln!("{message}"),
        }
    }
    // QEMU ends at the reset (`-no-reboot`).
    reboot(RebootMode::RB_AUTOBOOT).context("cannot reset the machine")?;
    Ok(())
}

fn work(results: &mut Option<File>) -> Result<()> {
    mount_file_systems()?;
    let port = OpenOptions::new().write(true).open(RESULTS);
    let results = results.insert(port.with_context(|| format!("cannot open {RESULTS}"))?);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let release = release.trim().to_owned();
    report(results, &Report::Booted { release })?;
    let text = fs::read(Path::new("/").join(PLAN)).context("cannot read the plan")?;
    let plan: Plan = serde_json::from_slice(&text).context("cannot read the plan")?;
    for module in MODULES {
        // If the kernel lacks it, the tests that need it say so.
        let _ = command("modprobe").args(["-q", module]).status();
    }
    let up = command("ip").args(["link", "set", "lo", "up"]).status();
    up.context("cannot start ip")?;
    for suite in &plan.suites {
        commit_sabotage(plan.sabotage)?;
        let name = suite.name.clone();
        report(
            results,
            &Report::Begin {
                suite: name.clone(),
            },
        )?;
        let started = Instant::now();
        let status = match run_suite(suite, plan.seconds, results) {
            Ok(status) => status.to_string(),
            Err(error) => format!("{error:#}"),
        };
        let seconds = started.elapsed().as_secs_f64();
        let suite = name;
        report(
            results,
            &Report::End {
                suite,
                status,
                seconds,
            },
        )?;
    }
    report(results, &Report::Done)
}

fn commit_sabotage(sabotage: Option<Sabotage>) -> Result<()> {
    match sabotage {
        Some(Sabotage::Panic) => fs::write("/proc/sysrq-trigger", "c")?,
        Some(Sabotage::Hang) => loop {
            thread::park();
        },
        Some(Sabotage::Exit) => anyhow::bail!("sabotaged"),
        Some(Sabotage::Verifier | Sabotage::Verdict) | None => {}
    }
    Ok(())
}

fn mount_file_systems() -> Result<()> {
    let none = None::<&str>;
    for (kind, place) in FILE_SYSTEMS {
        fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
        mount(Some(kind), place, Some(kind), MsFlags::empty(), none)
            .with_context(|| format!("cannot mount {place}"))?;
    }
    // Nothing is mounted on these, because the test binaries may be below them, at their paths on the host.
    for place in ["/tmp", "/run"] {
        fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
    }
    Ok(())
}

fn run_suite(suite: &Suite, seconds: u64, results: &File) -> Result<ExitStatus> {
    let mut child = command(&suite.program)
        .args(&suite.arguments)
        .stdin(Stdio::null())
        .stdout(results.try_clone()?)
        .stderr(results.try_clone()?)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", suite.program.display()))?;
    let status = wait(&mut child, Duration::from_secs(seconds))?;
    status.with_context(|| format!("killed after {seconds} s"))
}

/// Waits for a child. Kills it with all its children and returns `None` if it exceeds the limit.
fn wait(child: &mut Child, limit: Duration) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(POLL);
    }
    killpg(Pid::from_raw(child.id().try_into()?), Signal::SIGKILL)?;
    child.wait()?;
    Ok(None)
}

fn report(results: &mut File, report: &Report) -> Result<()> {
    // Starts with a newline, because a test binary that was killed may have written half a line.
    let line = format!("\n{MARK}{}\n", serde_json::to_string(report)?);
    let written = results.write_all(line.as_bytes());
    written.context("cannot write results")
}
