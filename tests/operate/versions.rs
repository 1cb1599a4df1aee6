//! A dataplane whose maps are of another version: it is named as such, never read, and replaced with what that loses.

use std::collections::BTreeSet;
use std::env;
use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::util::nr_cpus;
use egress_common::{Config, LAYOUT_VERSION, Outcome};
use egress_tests::addresses::V4;
use egress_tests::{Lab, http, router, skip_unless_lab_works};
use nix::libc;
use nix::sys::signal::Signal;

use crate::live::Live;
use crate::pod::Pod;

/// Names the program of version 6, which is then tested against this one.
const EARLIER: &str = "EGRESS_ROUTER_EARLIER_BIN";

/// What the program of layout version 6 pinned.
const MAPS_OF_VERSION_6: &str = include_str!("layout-6.txt");

/// A map that is made and pinned as an earlier version did.
struct OldMap<'t> {
    name: &'t str,
    kind: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
}

impl<'t> OldMap<'t> {
    fn parse(line: &'t str) -> Option<Self> {
        let mut words = line.split(' ');
        let name = words.next()?;
        let mut number = || words.next()?.parse().ok();
        Some(Self {
            name,
            kind: number()?,
            key_size: number()?,
            value_size: number()?,
            max_entries: number()?,
        })
    }

    /// Pins such a map in this directory.
    fn pin(&self, directory: &Path) -> Result<()> {
        const CREATE: i32 = 0;
        const PIN: i32 = 6;
        let made = [self.kind, self.key_size, self.value_size, self.max_entries];
        let context = || format!("making {}", self.name);
        let map = bpf(CREATE, &made).with_context(context)?;
        let path = CString::new(directory.join(self.name).as_os_str().as_bytes())?;
        let address = path.as_ptr().expose_provenance() as u64;
        #[expect(clippy::cast_possible_truncation, reason = "the halves are meant")]
        let pinned = [address as u32, (address >> 32) as u32, map, 0];
        bpf(PIN, &pinned).with_context(context)?;
        Ok(())
    }
}

/// A command of bpf(2), on a little-endian machine, with its attributes as words.
fn bpf(command: i32, attributes: &[u32; 4]) -> io::Result<u32> {
    // SAFETY: the kernel reads no more than the size, and a path that lives as long as the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(attributes),
        )
    };
    u32::try_from(result).map_err(|_| io::Error::last_os_error())
}

fn pinned(directory: &Path, name: &str) -> Result<Map> {
    Ok(Map::from_map_data(MapData::from_pin(
        directory.join(name),
    )?)?)
}

/// Pins what version 6 had in the directory of `pod`: for its interfaces, with two flows.
fn pin_version_6(lab: &Lab, pod: &Pod<'_>) -> Result<()> {
    let directory = pod.pin_path();
    std::fs::create_dir_all(&directory)?;
    let lines = MAPS_OF_VERSION_6
        .lines()
        .filter(|line| !line.starts_with('#'));
    for line in lines {
        let map = OldMap::parse(line).context(line)?;
        if !directory.join(map.name).exists() {
            map.pin(&directory)?;
        }
    }
    let netns: u64 = lab
        .router()
        .output("stat", ["-L", "-c", "%i", "/proc/self/ns/net"])?
        .trim()
        .parse()?;
    let index = |name| Ok::<_, anyhow::Error>(lab.router().interface(name)?.index);
    let mut config = [0; 760];
    for (offset, word) in [
        (0, 6),
        (4, index("eth0")?),
        (8, index("net1")?),
        (12, 4_194_304),
    ] {
        config[offset..][..4].copy_from_slice(&u32::to_ne_bytes(word));
    }
    config[16..24].copy_from_slice(&netns.to_ne_bytes());
    Array::<_, [u8; 760]>::try_from(pinned(&directory, "CONFIG")?)?.set(0, config, 0)?;
    let mut flows = HashMap::<_, [u8; 16], [u8; 64]>::try_from(pinned(&directory, "FLOWS_V4")?)?;
    for key in 0..4 {
        flows.insert([key; 16], [0; 64], 0)?;
    }
    let mut counters = PerCpuArray::<_, u64>::try_from(pinned(&directory, "COUNTERS")?)?;
    let cpus = nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))?;
    for number in 0..22 {
        counters.set(number, vec![1000; cpus].try_into()?, 0)?;
    }
    Ok(())
}

/// What `status` prints and complains of.
fn status(program: &Path, lab: &Lab, options: &[&str]) -> Result<(String, String)> {
    let mut command = lab.router().command(program);
    let output = command.arg("status").args(options).output()?;
    let text = |bytes| String::from_utf8(bytes).context("what status printed");
    Ok((text(output.stdout)?, text(output.stderr)?))
}

/// What it complains of, where it is to show nothing.
fn refusal(program: &Path, lab: &Lab, options: &[&str]) -> Result<String> {
    match status(program, lab, options)? {
        (shown, complaint) if shown.is_empty() => Ok(complaint),
        (shown, _) => bail!("{} status {options:?} shows\n{shown}", program.display()),
    }
}

/// How this program refuses maps of version 6.
fn names_version_6(text: &str) -> bool {
    text.contains(&format!(
        "maps have layout version 6, this program knows version {LAYOUT_VERSION}"
    ))
}

#[test]
fn a_dataplane_of_version_6_is_named_and_replaced_and_what_is_lost_is_said() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let mut pod = Pod::new(&lab)?;
    pin_version_6(&lab, &pod)?;
    let path = pod.pin_path();
    let options = ["--pin-path", path.to_str().context("a path")?];
    let refused = refusal(&router::binary()?, &lab, &options)?;
    ensure!(names_version_6(&refused), "{refused}");

    pod.start(&[])?;
    pod.wait_for_log("its 2 flows end, and all counters start at 0")?;
    let log = pod.process()?.log();
    ensure!(names_version_6(&log) && !log.contains("took over"), "{log}");
    Live::open(&lab, &V4, 3)?.during(|| {
        let (shown, _) = status(&router::binary()?, &lab, &options)?;
        ensure!(shown.contains("dropped: nothing"), "{shown}");
        Ok(())
    })?;
    for retired in ["TAPS", "TAPS_LOST", "WANTED_V4", "WANTED_V6"] {
        ensure!(!path.join(retired).exists(), "{retired} is left");
    }
    pod.end(Signal::SIGTERM)?;
    ensure!(!path.exists(), "something is left");
    Ok(())
}

#[test]
fn a_start_that_fails_leaves_pins_as_they_were() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let mut pod = Pod::new(&lab)?;
    let path = pod.pin_path();
    ensure!(pod.start(&["--flow-log", "/no/such/file"]).is_err());
    ensure!(!path.exists(), "something is pinned");

    pin_version_6(&lab, &pod)?;
    let names = || -> Result<BTreeSet<_>> {
        let entries = std::fs::read_dir(&path)?;
        Ok(entries
            .map(|entry| entry.map(|it| it.file_name()))
            .collect::<io::Result<_>>()?)
    };
    let before = names()?;
    // An address that the pod does not have.
    ensure!(pod.start(&["--metrics-address", "192.0.2.1:9469"]).is_err());
    assert_eq!(names()?, before);
    ensure!(Array::<_, [u8; 760]>::try_from(pinned(&path, "CONFIG")?).is_ok());
    Ok(())
}

#[test]
fn a_dataplane_of_version_6_that_is_pinned_beside_is_replaced() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let mut pod = Pod::new(&lab)?;
    pin_version_6(&lab, &pod)?;
    let before = pod.pin_path();
    pod.pin_elsewhere("renamed");
    pod.start(&[])?;
    pod.wait_for_log("replaced the dataplane that was pinned")?;
    ensure!(!before.exists(), "{} is left", before.display());
    Ok(())
}

/// It replaces the maps that it knows, and leaves the one that says whose they are.
#[test]
fn what_a_program_of_version_6_has_made_of_later_pins_is_not_taken_over() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let mut pod = Pod::start_in(&lab, &["--keep"])?;
    pod.end(Signal::SIGTERM)?;
    let path = pod.pin_path();
    for entry in std::fs::read_dir(&path)? {
        let entry = entry?;
        if entry.file_name() != "INSTANCE" {
            std::fs::remove_file(entry.path())?;
        }
    }
    pin_version_6(&lab, &pod)?;
    let options = ["--pin-path", path.to_str().context("a path")?];
    let refused = refusal(&router::binary()?, &lab, &options)?;
    ensure!(
        refused.contains("another version of this program has pinned it"),
        "{refused}"
    );
    pod.start(&[])?;
    pod.wait_for_log("its 2 flows end, and all counters start at 0")?;
    Live::open(&lab, &V4, 3)?.during(|| Ok(()))?;
    ensure!(Array::<_, Config>::try_from(pinned(&path, "CONFIG")?).is_ok());
    Ok(())
}

#[test]
fn a_counter_that_this_version_does_not_know_is_shown_by_its_number() -> Result<()> {
    skip_unless_lab_works!();
    const NUMBER: u32 = 63;
    assert_eq!(Outcome::from_number(NUMBER), None);
    let lab = Lab::new()?;
    let address = "127.0.0.1:9469";
    let pod = Pod::start_in(&lab, &["--metrics-address", address])?;
    let map = pinned(&pod.pin_path(), "COUNTERS")?;
    let cpus = nr_cpus().map_err(|(path, error)| anyhow::anyhow!("{path}: {error}"))?;
    let mut values = vec![0; cpus];
    values[0] = 7;
    PerCpuArray::<_, u64>::try_from(map)?.set(NUMBER, values.try_into()?, 0)?;

    let status = pod.ask("status")?;
    let outcomes = status["outcomes"]
        .as_array()
        .context("outcomes are a list")?;
    ensure!(outcomes.len() == Outcome::ALL.len() + 1, "{status:#}");
    let unknown = outcomes.iter().find(|it| it["name"] == "unknown_63");
    let unknown = unknown.with_context(|| format!("{status:#}"))?;
    assert_eq!(
        (&unknown["packets"], &unknown["verdict"]),
        (&7.into(), &"unknown".into())
    );
    let metrics = http::get(lab.router(), address.parse()?, "metrics")?;
    let sample = "egress_router_outcomes_total{outcome=\"unknown_63\",verdict=\"unknown\"} 7";
    ensure!(metrics.contains(sample), "no {sample} in\n{metrics}");
    Ok(())
}

/// Needs the program itself, and is skipped without it.
#[test]
fn the_program_of_version_6_and_this_one_refuse_each_others_dataplanes() -> Result<()> {
    skip_unless_lab_works!();
    let Some(earlier) = env::var_os(EARLIER).map(PathBuf::from) else {
        egress_tests::requirements::skipped(
            egress_tests::function_name!(),
            &format!("{EARLIER} does not name a program of version 6"),
        );
        return Ok(());
    };
    let this = router::binary()?;
    for attach in ["auto", "clsact"] {
        let options = ["--keep", "--attach", attach];
        let lab = Lab::new()?;
        let mut pod = Pod::new(&lab)?;
        let path = pod.pin_path();
        let by_pins = ["--pin-path", path.to_str().context("a path")?];
        let by_programs = [];

        pod.start_program(&earlier, &options)?;
        let live = Live::open(&lab, &V4, 10)?;
        live.during(|| {
            for options in [&by_programs[..], &by_pins] {
                let refused = refusal(&this, &lab, options)?;
                ensure!(names_version_6(&refused), "{refused}");
            }
            Ok(())
        })?;
        pod.end(Signal::SIGTERM)?;
        drop(live);

        pod.start(&options)?;
        pod.wait_for_log("its 11 flows end, and all counters start at 0")?;
        ensure!(names_version_6(&pod.process()?.log()));
        Live::open(&lab, &V4, 3)?.during(|| {
            for options in [&by_programs[..], &by_pins] {
                refusal(&earlier, &lab, options)?;
                let (shown, complaint) = status(&this, &lab, options)?;
                ensure!(shown.contains("flows      4 of"), "{shown}{complaint}");
            }
            Ok(())
        })?;
        pod.end(Signal::SIGTERM)?;

        // Back again, which leaves what the earlier one does not know.
        pod.start_program(&earlier, &options)?;
        Live::open(&lab, &V4, 3)?.during(|| {
            let refused = refusal(&this, &lab, &by_programs)?;
            ensure!(names_version_6(&refused), "{refused}");
            refusal(&this, &lab, &by_pins).map(drop)
        })?;
        pod.end(Signal::SIGTERM)?;
        pod.start(&["--attach", attach])?;
        pod.wait_for_log("its 4 flows end, and all counters start at 0")?;
        Live::open(&lab, &V4, 3)?.during(|| Ok(()))?;
        pod.end(Signal::SIGTERM)?;
        ensure!(!path.exists(), "something is left");
    }
    Ok(())
}
