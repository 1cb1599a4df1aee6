//! `test-kernels`: runs the test binaries on other kernels, in virtual machines.

mod download;
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
use std::process::ExitCode;
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cargo_metadata::Message;
use clap::{Args, ValueEnum};

use self::download::{Store, Unavailable, Unpacked};
use self::guest::{Plan, Report, Suite};
use self::image::Layer;
use self::manifest::{KERNELS, Kernel};
use self::results::{KernelResults, Reader};
use self::sabotage::Sabotage;
use self::vm::Machine;
use crate::build::{self, Profile};
use crate::process::{exit_code, sh};
use crate::requirements::REQUIREMENTS;
use crate::results::{Format, Outcome};
use crate::setup;
use crate::workspace::Workspace;

/// Programs that the tests and the kernel call, in addition to those of the lab.
const PROGRAMS: [&str; 8] = [
    "install", "ls", "modprobe", "mount", "setpriv", "sh", "touch", "unshare",
];
/// Files that those programs and the C library read, if they exist.
const FILES: [&str; 4] = [
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/protocols",
];
/// The longest time between two lines of progress about one machine.
const PROGRESS: Duration = Duration::from_secs(20);

/// The test binaries whose results depend on the kernel.
const SUITES: [&str; 3] = ["packets", "redirect", "commands"];
/// The tests of `redirect` for [`Extent::Few`] and [`Extent::Some`]. Each loads the kernel half again, which takes an
/// emulated machine five seconds and more. The other binaries always run completely.
const FEW: [&str; 4] = [
    "interfaces::eth0_may_be_a_netkit_without_mac_addresses_and_net1_an_ipvlan::over_ipv6",
    "interfaces::net1_may_be_an_ipvlan::over_ipv4",
    "redirection::raw_tcp_is_redirected_both_ways::over_ipv4",
    "sctp_sockets::an_association_carries_messages_both_ways_on_several_streams::over_ipv6",
];
const SOME: [&str; 3] = ["interfaces::", "redirection::", "sctp_sockets::"];

/// The options of `test-kernels`.
#[derive(Args)]
pub struct Options {
    /// Kernels by series, separated by commas, such as 5.10,6.1
    #[arg(long, value_delimiter = ',', value_parser = known_series(), conflicts_with = "all")]
    kernel: Vec<String>,
    /// Every kernel of the manifest, not only the default ones
    #[arg(long)]
    all: bool,
    /// Skip what cannot be downloaded, instead of failing
    #[arg(long)]
    skip_unavailable: bool,
    /// Run the guests on the machine's processor, instead of an emulated one
    #[arg(long)]
    kvm: bool,
    /// The time limit of each kernel, in seconds
    #[arg(long, default_value_t = 600)]
    time_limit: u64,
    /// Test binaries, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = SUITES, default_values = ["packets", "redirect"])]
    suite: Vec<String>,
    /// Which of the tests with real traffic to run [default: few; some with --all]
    #[arg(long, value_enum)]
    tests: Option<Extent>,
    /// Break something on the first kernel, to check that it is reported
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
    /// The format of the results: a table, or test by test
    #[arg(long, value_enum, default_value_t = Format::Text)]
    output: Format,
    /// For every test binary: a part of a test's name, options of libtest
    #[arg(last = true, value_name = "FILTER")]
    arguments: Vec<String>,
}

/// Which tests run without a filter.
#[derive(Clone, Copy, ValueEnum)]
enum Extent {
    /// One of each kind, alternately IPv4 and IPv6; half a minute on an emulated machine.
    Few,
    /// Those that depend most on the kernel; a few minutes.
    Some,
    /// All; half an hour.
    Every,
}

fn known_series() -> Vec<&'static str> {
    KERNELS.iter().map(|it| it.series.as_str()).collect()
}

impl Options {
    fn kernels(&self) -> Vec<&'static Kernel> {
        let is_wanted = |kernel: &&Kernel| {
            if self.kernel.is_empty() {
                self.all || kernel.is_default
            } else {
                self.kernel.contains(&kernel.series)
            }
        };
        KERNELS.iter().filter(is_wanted).collect()
    }

    fn suites(&self, binaries: &BTreeMap<String, PathBuf>) -> Vec<Suite> {
        let usual = if self.all { Extent::Some } else { Extent::Few };
        let filters: &[&str] = match self.tests.unwrap_or(usual) {
            Extent::Few => &FEW,
            Extent::Some => &SOME,
            Extent::Every => &[],
        };
        let suite = |name: &str| {
            // One at a time, because two routers that start at once take more than twice as long.
            let mut arguments = vec!["--test-threads=1".to_owned()];
            arguments.extend(self.arguments.iter().cloned());
            if self.arguments.is_empty() && name == "redirect" {
                arguments.extend(filters.iter().map(|&filter| filter.to_owned()));
            }
            let (name, program) = (name.to_owned(), binaries[name].clone());
            Suite {
                name,
                program,
                arguments,
            }
        };
        let is_wanted = |name: &&str| self.suite.iter().any(|wanted| wanted == name);
        SUITES.into_iter().filter(is_wanted).map(suite).collect()
    }
}

/// Runs the tests on the selected kernels. A failing test or kernel is not an error, but changes the exit code.
pub fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    setup::ensure_complete(workspace)?;
    let directory = workspace.target.join("kernels");
    let (kernels, skipped) = available(options, &directory)?;
    if kernels.is_empty() {
        print!("{}", table::table(&[], &skipped));
        return Ok(ExitCode::SUCCESS);
    }
    build::all(workspace, Profile::Debug)?;
    let binaries = test_binaries(workspace)?;
    let guest = Guest::new(workspace, options, &binaries, directory.join("runs"))?;
    let results = guest.test_all(&kernels)?;

    let json = serde_json::to_string_pretty(&results)?;
    let file = directory.join("results.json");
    sh().write_file(&file, &json)?;
    if options.output == Format::Json {
        println!("{json}");
    } else {
        println!("\n{}", workspace.shown(&file));
        print!("{}", table::table(&results, &skipped));
    }
    Ok(exit_code(results.iter().all(|kernel| kernel.success)))
}

type Available = Vec<(&'static Kernel, Unpacked)>;

/// Installs and downloads what is missing. Returns the kernels that can be tested, and why others are skipped.
fn available(options: &Options, directory: &Path) -> Result<(Available, Vec<String>)> {
    if let Err(error) = setup::ensure_programs(&REQUIREMENTS.kernels) {
        ensure!(options.skip_unavailable, error);
        return Ok((Vec::new(), vec![format!("every kernel: {error:#}")]));
    }
    let (mut available, mut skipped) = (Vec::new(), Vec::new());
    let kernels = &options.kernels();
    let store = Store { directory, kernels };
    for (kernel, fetched) in kernels.iter().zip(store.fetch()) {
        match fetched {
            Err(error) if options.skip_unavailable && error.is::<Unavailable>() => {
                skipped.push(format!("{}: {error:#}", kernel.series));
            }
            fetched => available.push((*kernel, fetched?)),
        }
    }
    Ok((available, skipped))
}

/// Builds the test binaries and returns their paths by name.
fn test_binaries(workspace: &Workspace) -> Result<BTreeMap<String, PathBuf>> {
    // With the same options as `test`, so that both share the binaries.
    let cargo = workspace.cargo_for_host("test --no-run");
    let text = cargo
        .arg("--message-format=json-render-diagnostics")
        .read()?;
    let mut binaries = BTreeMap::new();
    for message in Message::parse_stream(text.as_bytes()) {
        if let Message::CompilerArtifact(it) = message? {
            binaries.extend(it.executable.map(|path| (it.target.name, path.into())));
        }
    }
    for suite in SUITES {
        let is_built = binaries.contains_key(suite);
        ensure!(is_built, "cargo built no test binary {suite}");
    }
    Ok(binaries)
}

/// What all machines share.
struct Guest {
    /// Programs, their libraries, and the test binaries.
    base: PathBuf,
    plan: PathBuf,
    /// For the first kernel only.
    sabotaged: Vec<PathBuf>,
    init: PathBuf,
    runs: PathBuf,
    kvm: bool,
    limit: Duration,
}

impl Guest {
    fn new(
        workspace: &Workspace,
        options: &Options,
        binaries: &BTreeMap<String, PathBuf>,
        runs: PathBuf,
    ) -> Result<Self> {
        // The running program itself, because cargo may have replaced its file.
        let init = runs.join("init");
        sh().create_dir(&runs)?;
        sh().copy_file("/proc/self/exe", &init)?;
        let base = runs.join("base.cpio");
        base_layer(workspace, binaries, &init)?.write(&base)?;

        let plan = |directory: &str, sabotage| {
            let (suites, seconds) = (options.suites(binaries), options.time_limit);
            let plan = serde_json::to_vec(&Plan {
                suites,
                seconds,
                sabotage,
            })?;
            image::single_file(&runs.join(directory), Path::new(guest::PLAN), &plan)
        };
        let mut sabotaged = Vec::new();
        if let Some(sabotage) = options.sabotage {
            sabotaged.push(plan("sabotage", Some(sabotage))?);
            if sabotage.changes_binary() {
                let binary = &binaries["packets"];
                let broken = sabotage.apply(binary, &workspace.object())?;
                let directory = runs.join("replacement");
                sabotaged.push(image::single_file(&directory, binary, &broken)?);
            }
        }
        let (plan, kvm) = (plan("plan", None)?, options.kvm);
        let limit = Duration::from_secs(options.time_limit);
        Ok(Self {
            base,
            plan,
            sabotaged,
            init,
            runs,
            kvm,
            limit,
        })
    }

    /// Tests the kernels, as many at once as there are processors.
    fn test_all(&self, kernels: &Available) -> Result<Vec<KernelResults>> {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        // Newest first: they take longest.
        let queue = Mutex::new(kernels.iter().enumerate().rev());
        let results = Mutex::new(BTreeMap::new());
        let next = || queue.lock().expect("no worker panics").next();
        thread::scope(|scope| {
            for _ in 0..processors.min(kernels.len()) {
                scope.spawn(|| {
                    while let Some((index, (kernel, unpacked))) = next() {
                        let layers = if index == 0 { &self.sabotaged[..] } else { &[] };
                        let result = self.test(&kernel.series, unpacked, layers);
                        let mut results = results.lock().expect("no worker panics");
                        results.insert(index, result);
                    }
                });
            }
        });
        results.into_inner()?.into_values().collect()
    }

    fn test(&self, series: &str, unpacked: &Unpacked, more: &[PathBuf]) -> Result<KernelResults> {
        let modules = image::modules(unpacked)?;
        let file = |kind: &str| self.runs.join(format!("{series}.{kind}"));
        let initrd = file("initrd");
        image::join(
            [&self.base, &modules, &self.plan].into_iter().chain(more),
            &initrd,
        )?;
        let machine = Machine {
            kernel: &unpacked.image,
            initrd: &initrd,
            init: &self.init,
            console: &file("console"),
            log: &file("log"),
            kvm: self.kvm,
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

/// The files that every guest has.
fn base_layer(
    workspace: &Workspace,
    binaries: &BTreeMap<String, PathBuf>,
    init: &Path,
) -> Result<Layer> {
    let mut layer = Layer::new("/");
    let required = REQUIREMENTS
        .lab
        .iter()
        .map(|requirement| requirement.program.as_str());
    let router = build::binary(workspace, Profile::Debug);
    let own = SUITES.map(|suite| binaries[suite].as_path());
    let own = own.into_iter().chain([init, &router]);
    for program in required.chain(PROGRAMS).map(Path::new).chain(own) {
        layer.add_program(program)?;
    }
    // The kernel runs it from this path, wherever it is on this machine.
    layer.add(Path::new("/sbin/modprobe"))?;
    for file in FILES.iter().map(Path::new).filter(|file| file.exists()) {
        layer.add(file)?;
    }
    // The tests find the examples and the schema by the path of their own sources.
    layer.add(&workspace.root.join("tests/Cargo.toml"))?;
    layer.add(&workspace.root.join("docs"))?;
    layer.add(&workspace.object())?;
    Ok(layer)
}

fn show_progress(series: &str, elapsed: Duration, report: Option<&Report>, reader: &Reader) {
    let what = match (report, reader.current()) {
        (Some(Report::Booted { release }), _) => format!("{release} is up"),
        (Some(Report::End { suite, .. }), Some(results)) => format!("{suite}: {results}"),
        (Some(Report::Begin { suite }), _) => format!("{suite} …"),
        (Some(Report::Problem { message }), _) => message.clone(),
        (Some(Report::Done), _) => "done".to_owned(),
        (_, Some(results)) => {
            let (heard, failed) = (results.tests.len(), results.count(Outcome::Failed));
            format!(
                "{}: {heard} of {}, {failed} failed",
                results.name, results.announced
            )
        }
        (None | Some(Report::End { .. }), None) => return,
    };
    eprintln!("{series:<5} {:>4} s  {what}", elapsed.as_secs());
}
