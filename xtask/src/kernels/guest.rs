//! The first process of a guest: this very program, which runs the test binaries there.

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
/// Begins every line of the guest's own among those of the test binaries.
pub const MARK: &str = "==guest== ";

/// The serial port for results; the first one is the kernel's.
const RESULTS: &str = "/dev/ttyS1";
const POLL: Duration = Duration::from_millis(20);

/// What a guest is to do.
#[derive(Deserialize, Serialize)]
pub struct Plan {
    /// Kernel modules to load beforehand, where the kernel has them.
    pub modules: Vec<String>,
    /// Set for all programs.
    pub environment: Vec<(String, String)>,
    /// What runs, one after the other.
    pub suites: Vec<Suite>,
    /// What goes wrong on purpose.
    pub sabotage: Option<Sabotage>,
}

/// A test binary to run.
#[derive(Deserialize, Serialize)]
pub struct Suite {
    /// Its name in the results.
    pub name: String,
    /// The binary.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// After this long it is killed.
    pub seconds: u64,
}

/// What a guest tells about its own work.
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
        /// How long it took.
        seconds: f64,
    },
    /// Something went wrong outside the suites.
    Problem { message: String },
    /// Everything was run.
    Done,
}

impl Plan {
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.envs(self.environment.iter().cloned());
        command
    }
}

/// Runs the plan and turns the machine off. For the first process of a guest only.
pub fn run() -> Result<()> {
    let mut results = None;
    if let Err(error) = work(&mut results) {
        let message = format!("{error:#}");
        match &mut results {
            Some(file) => tell(file, &Report::Problem { message })?,
            None => eprintln!("{message}"),
        }
    }
    // QEMU ends at the reset (`-no-reboot`), and with it what is left of the suites.
    reboot(RebootMode::RB_AUTOBOOT).context("cannot reset the machine")?;
    Ok(())
}

fn work(results: &mut Option<File>) -> Result<()> {
    mount_file_systems()?;
    let file = OpenOptions::new()
        .write(true)
        .open(RESULTS)
        .with_context(|| format!("cannot open {RESULTS}"))?;
    let results = results.insert(file);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?
        .trim()
        .to_owned();
    tell(results, &Report::Booted { release })?;
    let text = fs::read_to_string(Path::new("/").join(PLAN)).context("cannot read the plan")?;
    let plan: Plan = serde_json::from_str(&text).context("cannot read the plan")?;
    for module in &plan.modules {
        // A kernel without it has tests that say so.
        let _ = plan.command("modprobe").args(["-q", module]).status();
    }
    let up = plan
        .command("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    up.context("cannot start ip")?;
    for suite in &plan.suites {
        suffer(plan.sabotage)?;
        let name = &suite.name;
        tell(
            results,
            &Report::Begin {
                suite: name.clone(),
            },
        )?;
        let started = Instant::now();
        let status = match run_suite(suite, plan.command(&suite.program), results) {
            Ok(status) => status.to_string(),
            Err(error) => format!("{error:#}"),
        };
        let seconds = started.elapsed().as_secs_f64();
        tell(
            results,
            &Report::End {
                suite: name.clone(),
                status,
                seconds,
            },
        )?;
    }
    tell(results, &Report::Done)
}

fn suffer(sabotage: Option<Sabotage>) -> Result<()> {
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
    let mounts = [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("bpf", "/sys/fs/bpf"),
    ];
    for (kind, place) in mounts {
        fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
        mount(
            Some(kind),
            place,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        )
        .with_context(|| format!("cannot mount {place}"))?;
    }
    // Nothing is mounted here: the tests themselves may be below, at the place that they have on the host.
    for place in ["/tmp", "/run"] {
        fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
    }
    Ok(())
}

fn run_suite(suite: &Suite, mut command: Command, results: &File) -> Result<ExitStatus> {
    let mut child = command
        .args(&suite.arguments)
        .stdin(Stdio::null())
        .stdout(results.try_clone()?)
        .stderr(results.try_clone()?)
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {}", suite.program.display()))?;
    wait(&mut child, Duration::from_secs(suite.seconds))?
        .with_context(|| format!("killed after {} s", suite.seconds))
}

/// Waits for a child; one that takes too long is killed with all its children.
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

fn tell(results: &mut File, report: &Report) -> Result<()> {
    // After a newline: a test binary that was killed may have left half a line.
    let line = format!("\n{MARK}{}\n", serde_json::to_string(report)?);
    results
        .write_all(line.as_bytes())
        .context("cannot write results")
}
