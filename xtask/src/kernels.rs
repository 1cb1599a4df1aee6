//! `test-kernels`: the test binaries on other kernels, in virtual machines.

mod download;
mod features;
pub mod guest;
mod image;
mod manifest;
mod results;
mod sabotage;
mod table;
mod vm;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use clap::{Args, ValueEnum};
use serde::Deserialize;

use self::download::{Store, Unavailable, Unpacked};
use self::guest::{Plan, Report, Suite};
use self::image::Layer;
use self::manifest::{KERNELS, Kernel};
use self::results::{KernelResults, Outcome, Reader};
use self::sabotage::Sabotage;
use self::vm::{Accelerator, Machine};
use crate::build::{self, Profile};
use crate::process::CommandExt as _;
use crate::requirements::{KERNEL_REQUIREMENTS, REQUIREMENTS};
use crate::setup;
use crate::workspace::Workspace;

/// Programs that the tests and the kernel call, beside those that the lab requires.
const PROGRAMS: [&str; 8] = [
    "install", "ls", "modprobe", "mount", "setpriv", "sh", "touch", "unshare",
];
/// What those programs and the C library read, where a machine has it.
const FILES: [&str; 4] = [
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/protocols",
];
/// Kernel modules that nothing asks for by name when it is needed.
const GUEST_MODULES: [&str; 1] = ["sctp"];
/// Between two lines of progress about one machine.
const PROGRESS: Duration = Duration::from_secs(20);

/// What to test, and how.
#[derive(Args)]
pub struct Options {
    /// Kernels by series, separated by commas, such as 5.10,6.1
    #[arg(long, value_delimiter = ',', value_parser = known_series(), conflicts_with = "all")]
    kernel: Vec<String>,
    /// Every kernel of the manifest, not only the default ones
    #[arg(long)]
    all: bool,
    /// Skip what the network does not give, instead of failing
    #[arg(long)]
    skip_unavailable: bool,
    /// Let the machine's processor run the guests, instead of emulating one
    #[arg(long)]
    kvm: bool,
    /// Seconds that one kernel may take
    #[arg(long, default_value_t = 600)]
    time_limit: u64,
    /// Test binaries, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = SUITES.map(|suite| suite.name),
        default_values = ["packets", "redirect"])]
    suite: Vec<String>,
    /// How many of the tests with real traffic run [default: few; some with --all]
    #[arg(long, value_enum)]
    tests: Option<Extent>,
    /// Break something on the first kernel, to see that it is reported
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
    /// How the results are shown
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
    /// For every test binary: a part of a test's name, options of libtest
    #[arg(last = true, value_name = "FILTER")]
    arguments: Vec<String>,
}

/// How many tests run unless a filter says which.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Extent {
    /// One of each kind, the families taking turns; half a minute on an emulated machine.
    Few,
    /// What depends most on the kernel, a few minutes.
    Some,
    /// All, half an hour.
    Every,
}

/// A test binary that a kernel has a say in.
struct Binary {
    name: &'static str,
    /// Which of its tests are few, and which are some; none stands for all.
    few: &'static [&'static str],
    some: &'static [&'static str],
}

const SUITES: [Binary; 3] = [
    Binary {
        name: "packets",
        few: &[],
        some: &[],
    },
    // Each loads the kernel half anew, which takes an emulated machine five seconds and more.
    Binary {
        name: "redirect",
        few: &[
            "interfaces::eth0_may_be_a_netkit_without_mac_addresses_and_net1_an_ipvlan::over_ipv6",
            "interfaces::net1_may_be_an_ipvlan::over_ipv4",
            "redirection::raw_tcp_is_redirected_both_ways::over_ipv4",
            "sctp_sockets::an_association_carries_messages_both_ways_on_several_streams::over_ipv6",
        ],
        some: &["interfaces::", "redirection::", "sctp_sockets::"],
    },
    Binary {
        name: "commands",
        few: &[],
        some: &[],
    },
];

/// The form of the results on standard output.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A table for people.
    Text,
    /// Everything, test by test.
    Json,
}

fn known_series() -> Vec<&'static str> {
    KERNELS.iter().map(|kernel| kernel.series).collect()
}

impl Options {
    fn kernels(&self) -> Vec<Kernel> {
        let is_wanted = |kernel: &&Kernel| {
            if self.kernel.is_empty() {
                self.all || kernel.is_default
            } else {
                self.kernel.iter().any(|series| series == kernel.series)
            }
        };
        KERNELS.iter().filter(is_wanted).copied().collect()
    }

    fn suites(&self, binaries: &BTreeMap<String, PathBuf>) -> Vec<Suite> {
        let is_wanted = |binary: &&Binary| self.suite.iter().any(|suite| suite == binary.name);
        let suite = |binary: &Binary| {
            // One after the other: two routers that start at once take more than twice as long.
            let mut arguments = vec!["--test-threads=1".to_owned()];
            arguments.extend(self.arguments.iter().cloned());
            if self.arguments.is_empty() {
                let filters = self.filters(binary).iter();
                arguments.extend(filters.map(|&filter| filter.to_owned()));
            }
            Suite {
                name: binary.name.to_owned(),
                program: binaries[binary.name].clone(),
                arguments,
                seconds: self.time_limit,
            }
        };
        SUITES.iter().filter(is_wanted).map(suite).collect()
    }

    fn filters(&self, binary: &Binary) -> &'static [&'static str] {
        match self.tests {
            Some(Extent::Every) => &[],
            Some(Extent::Some) => binary.some,
            None if self.all => binary.some,
            Some(Extent::Few) | None => binary.few,
        }
    }

    fn accelerator(&self) -> Accelerator {
        if self.kvm {
            Accelerator::Kvm
        } else {
            Accelerator::Tcg
        }
    }
}

/// Runs the tests on the kernels that were asked for.
///
/// # Errors
/// Setup, a build or a download fails. A failing test or kernel is no error but the exit code.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    setup::ensure_complete(workspace)?;
    let directory = workspace.target().join("kernels");
    let Some(available) = Available::find(options, &directory)? else {
        return Ok(ExitCode::SUCCESS);
    };
    build::all(workspace, Profile::Debug)?;
    let binaries = test_binaries(workspace)?;
    let runs = directory.join("runs");
    fs::create_dir_all(&runs).with_context(|| format!("cannot make {}", runs.display()))?;

    // Cargo may have replaced the file by now, so this process has the only copy.
    let init = runs.join("init");
    fs::copy("/proc/self/exe", &init).context("cannot copy this program")?;
    let guest = Guest {
        base: base_layer(workspace, &binaries, &init, &runs)?,
        plan: plan_layer(options, &binaries, &runs, None)?,
        sabotaged: sabotaged_layers(workspace, options, &binaries, &runs)?,
        init,
        runs,
        accelerator: options.accelerator(),
        limit: Duration::from_secs(options.time_limit),
    };
    let results = guest.test_all(&available.kernels)?;
    report(workspace, options, &directory, &results, &available.skipped)
}

/// What can be tested here.
struct Available {
    kernels: Vec<(Kernel, Unpacked)>,
    /// Why the others cannot.
    skipped: Vec<String>,
}

impl Available {
    /// Installs and downloads what is missing. `None`, after saying why, if nothing is left that could be tested.
    fn find(options: &Options, directory: &Path) -> Result<Option<Self>> {
        let mut available = Self {
            kernels: Vec::new(),
            skipped: Vec::new(),
        };
        match setup::ensure_programs(KERNEL_REQUIREMENTS) {
            Err(error) if options.skip_unavailable => {
                available.skipped.push(format!("every kernel: {error:#}"));
            }
            result => {
                result?;
                available.fetch(options, directory)?;
            }
        }
        if available.kernels.is_empty() {
            print!("{}", table::table(&[], &available.skipped));
            return Ok(None);
        }
        Ok(Some(available))
    }

    fn fetch(&mut self, options: &Options, directory: &Path) -> Result<()> {
        let kernels = options.kernels();
        let fetched = Store::new(directory, &kernels).fetch(&kernels);
        for (kernel, fetched) in kernels.into_iter().zip(fetched) {
            match fetched {
                Err(error) if options.skip_unavailable && error.is::<Unavailable>() => {
                    self.skipped.push(format!("{}: {error:#}", kernel.series));
                }
                fetched => self.kernels.push((kernel, fetched?)),
            }
        }
        Ok(())
    }
}

fn report(
    workspace: &Workspace,
    options: &Options,
    directory: &Path,
    results: &[KernelResults],
    skipped: &[String],
) -> Result<ExitCode> {
    let json = serde_json::to_string_pretty(results)?;
    let file = directory.join("results.json");
    fs::write(&file, &json).with_context(|| format!("cannot write {}", file.display()))?;
    match options.output {
        Output::Json => println!("{json}"),
        Output::Text => {
            println!("\n{}", workspace.shown(&file).display());
            print!("{}", table::table(results, skipped));
        }
    }
    Ok(if results.iter().all(|kernel| kernel.success) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The test binaries by their names, built.
fn test_binaries(workspace: &Workspace) -> Result<BTreeMap<String, PathBuf>> {
    #[derive(Deserialize)]
    struct Artifact {
        target: Target,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    let text = workspace
        .cargo()
        // As `test` does, so that both have the same binaries.
        .args([
            "test",
            "--workspace",
            "--exclude",
            "egress-ebpf",
            "--no-run",
        ])
        .args(["--message-format", "json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .read()?;
    let artifacts = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Artifact>(line).ok());
    let binaries: BTreeMap<_, _> = artifacts
        .filter_map(|artifact| Some((artifact.target.name, artifact.executable?)))
        .collect();
    for suite in SUITES {
        ensure!(
            binaries.contains_key(suite.name),
            "cargo built no test binary {}",
            suite.name
        );
    }
    Ok(binaries)
}

/// What every guest has: programs, their libraries, and the test binaries.
fn base_layer(
    workspace: &Workspace,
    binaries: &BTreeMap<String, PathBuf>,
    init: &Path,
    runs: &Path,
) -> Result<PathBuf> {
    let mut layer = Layer::default();
    let required = REQUIREMENTS.iter().map(|requirement| requirement.program);
    for program in required.chain(PROGRAMS) {
        layer.add_program(Path::new(program))?;
    }
    // The kernel looks for it there, wherever it is on this machine.
    layer.add(Path::new("/sbin/modprobe"))?;
    let router = build::binary(workspace, Profile::Debug);
    let tests = SUITES.iter().filter_map(|suite| binaries.get(suite.name));
    for program in tests.map(PathBuf::as_path).chain([init, &router]) {
        layer.add_program(program)?;
    }
    for file in FILES
        .map(Path::new)
        .into_iter()
        .filter(|file| file.exists())
    {
        layer.add(file)?;
    }
    // The tests find the examples and the schema by the path of their own sources.
    layer.add(&workspace.root().join("tests/Cargo.toml"))?;
    layer.add(&workspace.root().join("docs"))?;
    layer.add(&workspace.object())?;
    let archive = runs.join("base.cpio");
    layer.write_of_this_machine(&archive)?;
    Ok(archive)
}

/// What the guests do. `sabotage` tells the sabotaged guest's plan from the others'.
fn plan_layer(
    options: &Options,
    binaries: &BTreeMap<String, PathBuf>,
    runs: &Path,
    sabotage: Option<Sabotage>,
) -> Result<PathBuf> {
    let plan = Plan {
        modules: GUEST_MODULES.map(str::to_owned).to_vec(),
        environment: vec![
            (
                "PATH".to_owned(),
                "/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
            ),
            ("EGRESS_TEST_FRAMES".to_owned(), "3000".to_owned()),
        ],
        suites: options.suites(binaries),
        sabotage,
    };
    let directory = runs.join(if sabotage.is_some() {
        "sabotage"
    } else {
        "plan"
    });
    fs::create_dir_all(&directory)?;
    image::single_file(&directory, guest::PLAN, &serde_json::to_string(&plan)?)
}

/// What the first kernel gets on top of the rest, if something is to be broken.
fn sabotaged_layers(
    workspace: &Workspace,
    options: &Options,
    binaries: &BTreeMap<String, PathBuf>,
    runs: &Path,
) -> Result<Vec<PathBuf>> {
    let Some(sabotage) = options.sabotage else {
        return Ok(Vec::new());
    };
    let mut layers = vec![plan_layer(options, binaries, runs, Some(sabotage))?];
    if sabotage.is_of_binary() {
        let binary = &binaries["packets"];
        let broken = sabotage.apply(binary, &workspace.object())?;
        layers.push(image::replacement(&runs.join("sabotage"), binary, &broken)?);
    }
    Ok(layers)
}

/// What all machines have in common.
struct Guest {
    base: PathBuf,
    plan: PathBuf,
    /// For the first kernel only.
    sabotaged: Vec<PathBuf>,
    init: PathBuf,
    runs: PathBuf,
    accelerator: Accelerator,
    limit: Duration,
}

impl Guest {
    /// Tests every kernel, as many at once as there are processors.
    fn test_all(&self, jobs: &[(Kernel, Unpacked)]) -> Result<Vec<KernelResults>> {
        let workers = thread::available_parallelism().map_or(1, usize::from);
        // The oldest are the fastest, so the last ones begin first.
        let queue = Mutex::new(jobs.iter().enumerate().collect::<Vec<_>>());
        let results = Mutex::new(BTreeMap::new());
        thread::scope(|scope| {
            for _ in 0..workers.min(jobs.len()) {
                scope.spawn(|| {
                    loop {
                        let next = queue.lock().ok().and_then(|mut queue| queue.pop());
                        let Some((index, (kernel, unpacked))) = next else {
                            break;
                        };
                        let layers = if index == 0 { &self.sabotaged[..] } else { &[] };
                        let result = self.test(kernel, unpacked, layers);
                        if let Ok(mut results) = results.lock() {
                            results.insert(index, result);
                        }
                    }
                });
            }
        });
        let results = results.into_inner().unwrap_or_default();
        results.into_values().collect()
    }

    fn test(
        &self,
        kernel: &Kernel,
        unpacked: &Unpacked,
        more: &[PathBuf],
    ) -> Result<KernelResults> {
        let series = kernel.series;
        let modules = image::modules(unpacked)?;
        let initrd = self.runs.join(format!("{series}.initrd"));
        let layers = [&self.base, &modules, &self.plan];
        image::join(layers.into_iter().chain(more), &initrd)?;
        let console = self.runs.join(format!("{series}.console"));
        let log = self.runs.join(format!("{series}.log"));
        let machine = Machine {
            kernel: &unpacked.image,
            initrd: &initrd,
            init: &self.init,
            console: &console,
            log: &log,
            accelerator: self.accelerator,
            limit: self.limit,
        };
        let started = Instant::now();
        let mut boot = Duration::ZERO;
        let mut shown = started;
        let mut reader = Reader::default();
        eprintln!("{series:<5} starts");
        let ending = machine.run(|line| {
            let report = reader.read_line(line);
            if matches!(report, Some(Report::Booted { .. })) {
                boot = started.elapsed();
            }
            if report.is_some() || shown.elapsed() > PROGRESS {
                show_progress(series, started.elapsed(), report.as_ref(), &reader);
                shown = Instant::now();
            }
        })?;
        fs::remove_file(&initrd)?;
        let mut results = reader.finish(series, &ending);
        results.boot_seconds = boot.as_secs_f64();
        results.seconds = started.elapsed().as_secs_f64();
        if results.release.is_empty() {
            results.release.clone_from(&unpacked.release);
        }
        for problem in &results.problems {
            eprintln!("{series:<5} {problem}");
        }
        Ok(results)
    }
}

fn show_progress(series: &str, elapsed: Duration, report: Option<&Report>, reader: &Reader) {
    let what = match (report, reader.current()) {
        (Some(Report::Booted { release }), _) => format!("{release} is up"),
        (Some(Report::End { suite, .. }), Some(results)) => format!("{suite}: {results}"),
        (Some(Report::Begin { suite }), _) => format!("{suite} …"),
        (Some(Report::Problem { message }), _) => message.clone(),
        (Some(Report::Done), _) => "done".to_owned(),
        (_, Some(results)) => format!(
            "{}: {} of {}, {} failed",
            results.name,
            results.tests.len(),
            results.announced(),
            results.count(Outcome::Failed)
        ),
        (None | Some(Report::End { .. }), None) => return,
    };
    eprintln!("{series:<5} {:>4} s  {what}", elapsed.as_secs());
}
