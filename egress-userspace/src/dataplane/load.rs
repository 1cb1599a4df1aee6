//! Loads the kernel half.

use std::{io, os::fd::AsFd as _, thread, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    maps::Map,
    programs::{Program, ProgramError, SchedClassifier, TestRun as _, TestRunOptions},
};
use thiserror::Error;

use super::{
    maps::Maps,
    maps_error::MapsError,
    pins::{self, Pins, PinsError},
    programs::{END_FLOW, PROGRAMS, START_SWEEP},
    raw,
};
use crate::net::kernel::Features;

/// The object that `cargo xtask build-ebpf` builds.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("EGRESS_ROUTER_BPF_OBJECT"));

/// The maximum number of held fragments per family, 1.5 KiB each.
const HELD_FRAGMENTS: u32 = 1024;

/// How often the timer is started until it is given up.
const TIMER_ATTEMPTS: u32 = 10;
/// How long after one attempt the next one is made.
const TIMER_RETRY: Duration = Duration::from_millis(50);

pub(super) fn classifier<'e>(
    ebpf: &'e mut Ebpf,
    name: &'static str,
) -> Result<&'e mut SchedClassifier, LoadError> {
    ebpf.program_mut(name)
        .ok_or(LoadError::NoProgram(name))?
        .try_into()
        .map_err(|source| LoadError::Program { name, source })
}

/// Binds the map with the identity to a program. No program uses that map, and readers find it through the program.
fn bind_identity(ebpf: &Ebpf) -> Result<(), LoadError> {
    let [program, name] = [PROGRAMS[0], pins::IDENTITY_MAPS[0]];
    let Some(Map::Array(map)) = ebpf.map(name) else {
        return Err(MapsError::Missing(name).into());
    };
    let fd = match ebpf.program(program) {
        Some(Program::SchedClassifier(classifier)) => classifier.fd(),
        _ => return Err(LoadError::NoProgram(program)),
    };
    let fd = fd.map_err(|source| LoadError::Program {
        name: program,
        source,
    })?;
    raw::bind(fd.as_fd(), map.fd().as_fd()).map_err(LoadError::Bind)
}

/// Why the kernel half could not be loaded.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The object cannot be loaded.
    #[error("could not load the kernel half: {0}")]
    Object(#[from] aya::EbpfError),
    /// The verifier refused a program.
    #[error("the kernel refused the program {name}: {source}")]
    Program {
        /// The program.
        name: &'static str,
        /// The kernel's error.
        source: ProgramError,
    },
    /// The object lacks a program.
    #[error(
        "the kernel half has no program {0}: it was built from other sources; run `cargo xtask build`"
    )]
    NoProgram(&'static str),
    /// The kernel refused to bind the map `INSTANCE` to a program.
    #[error(
        "the kernel refused to bind the map INSTANCE to a program, which requires Linux 5.10: {0}"
    )]
    Bind(#[source] io::Error),
    /// The sweep timer did not start.
    #[error("the kernel half's timer, which ends idle flows, did not start")]
    Timer,
    /// A map cannot be used.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// A pinned map cannot be used.
    #[error(transparent)]
    Pins(#[from] PinsError),
}

/// The settings that are fixed when the kernel half is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The index of the cluster interface.
    pub cluster_ifindex: u32,
    /// The index of the egress interface.
    pub egress_ifindex: u32,
    /// The maximum number of concurrent IPv4 flows.
    pub max_flows_v4: u32,
    /// The maximum number of concurrent IPv6 flows.
    pub max_flows_v6: u32,
    /// The maximum number of rules, including the fallback. The maps are twice as large, for two rule sets.
    pub max_rules: u32,
    /// The log level of the kernel half.
    pub log_level: log::LevelFilter,
    /// The kernel's optional features.
    pub features: Features,
}

impl Options {
    /// The default maximum number of flows per family.
    pub const DEFAULT_MAX_FLOWS: u32 = 262_144;
    /// The smallest `max_rules` that a router uses.
    pub const MIN_RULES: u32 = 1024;
}

/// The loaded kernel half. The kernel frees its maps and programs when it is dropped, unless they are pinned or
/// attached.
pub struct Dataplane {
    pub(super) ebpf: Ebpf,
    /// Its maps.
    pub maps: Maps,
    pub(super) pins: Option<Pins>,
}

impl Dataplane {
    /// Loads programs and maps into the kernel. Nothing is attached yet.
    ///
    /// # Errors
    ///
    /// If the kernel refuses the object or a program.
    pub fn load(options: &Options) -> Result<Self, LoadError> {
        Self::load_with(options, None)
    }

    /// Like [`Self::load`], with pinned maps. Existing maps of the right size are taken over with their contents; the
    /// others are created.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn load_pinned(options: &Options, pins: &Pins) -> Result<Self, LoadError> {
        let mut options = *options;
        // Maps of another size cannot be used, except that the maps of rules may be larger than requested.
        if let Some(entries) = pins.max_entries("RULE_COUNTERS")
            && entries / 2 >= options.max_rules
        {
            options.max_rules = entries / 2;
        } else {
            pins.remove_maps(["RULES_V4", "RULES_V6", "RULE_COUNTERS"])?;
        }
        for (flows, max_flows, others) in [
            ("FLOWS_V4", options.max_flows_v4, ["SWEEP_V4", "HELD_V4"]),
            ("FLOWS_V6", options.max_flows_v6, ["SWEEP_V6", "HELD_V6"]),
        ] {
            let entries = pins.max_entries(flows);
            if entries.is_some_and(|entries| entries != max_flows.saturating_mul(2)) {
                log::warn!("the size of {flows} has changed: its flows end");
                pins.remove_maps([flows])?;
                pins.remove_maps(others)?;
            }
        }
        Self::load_with(&options, Some(pins))
    }

    fn load_with(options: &Options, pins: Option<&Pins>) -> Result<Self, LoadError> {
        let log_level = options.log_level as u8;
        let coarse_clock = u8::from(options.features.coarse_clock);
        let kernel_expiry = u8::from(options.features.kernel_expiry);
        // The map holds whole frames: a family without flows needs no memory for them.
        let held = |max_flows| if max_flows > 1 { HELD_FRAGMENTS } else { 1 };
        let mut loader = EbpfLoader::new();
        for map in pins::MAPS {
            if let Some(pins) = pins {
                loader.map_pin_path(map.name, pins.map(map.name));
            }
        }
        let rules = options.max_rules.saturating_mul(2);
        let mut ebpf = loader
            .override_global("CLUSTER_IFINDEX", &options.cluster_ifindex, true)
            .override_global("EGRESS_IFINDEX", &options.egress_ifindex, true)
            .override_global("COARSE_CLOCK", &coarse_clock, true)
            .override_global("KERNEL_EXPIRY", &kernel_expiry, true)
            .override_global(aya_log::LEVEL, &log_level, true)
            // Each flow has an entry for each direction.
            .map_max_entries("FLOWS_V4", options.max_flows_v4.saturating_mul(2))
            .map_max_entries("FLOWS_V6", options.max_flows_v6.saturating_mul(2))
            .map_max_entries("SWEEP_V4", options.max_flows_v4)
            .map_max_entries("SWEEP_V6", options.max_flows_v6)
            .map_max_entries("HELD_V4", held(options.max_flows_v4))
            .map_max_entries("HELD_V6", held(options.max_flows_v6))
            .map_max_entries("RULES_V4", rules)
            .map_max_entries("RULES_V6", rules)
            .map_max_entries("RULE_COUNTERS", rules)
            .load(OBJECT)?;
        let expiry = options.features.kernel_expiry.then_some(START_SWEEP);
        for name in PROGRAMS.into_iter().chain([END_FLOW]).chain(expiry) {
            classifier(&mut ebpf, name)?
                .load()
                .map_err(|source| LoadError::Program { name, source })?;
        }
        bind_identity(&ebpf)?;
        let maps = Maps::take(&mut ebpf)?;
        Ok(Self {
            ebpf,
            maps,
            pins: pins.cloned(),
        })
    }

    /// The program with this name.
    ///
    /// # Errors
    ///
    /// If the object has no such program.
    pub fn program(&mut self, name: &'static str) -> Result<&mut SchedClassifier, LoadError> {
        classifier(&mut self.ebpf, name)
    }

    /// Starts the sweep timer, with which the kernel half ends idle flows. It runs until the kernel frees the maps.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, or was found to lack [`Features::kernel_expiry`].
    pub fn start_expiry(&mut self) -> Result<(), LoadError> {
        // The program ignores the frame.
        let frame = [0; 64];
        let program = classifier(&mut self.ebpf, START_SWEEP)?;
        // The kernel takes the timer's memory without waiting for any to be freed, so that it may fail for a moment.
        for attempt in 0..TIMER_ATTEMPTS {
            if attempt > 0 {
                thread::sleep(TIMER_RETRY);
            }
            let result = program
                .test_run(TestRunOptions {
                    data_in: Some(&frame),
                    ..TestRunOptions::default()
                })
                .map_err(|source| LoadError::Program {
                    name: START_SWEEP,
                    source,
                })?;
            if result.return_value == 0 {
                return Ok(());
            }
        }
        Err(LoadError::Timer)
    }

    /// The reader of the kernel half's log records.
    ///
    /// # Errors
    ///
    /// If the object has no ring buffer for log records.
    pub fn log_reader(
        &mut self,
    ) -> Result<aya_log::EbpfLogger<&'static dyn log::Log>, aya_log::Error> {
        aya_log::EbpfLogger::init(&mut self.ebpf)
    }
}
