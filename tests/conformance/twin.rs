//! Two routers with the same rules: ours and the kernel's NAT.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result};
use egress_tests::{RouterProcess, Spec, nftables};

use crate::canonical::{self, Chosen, canonical};
use crate::family::Family;
use crate::script::{Event, Script, Slot};
use crate::wire::{Output, Side, Wire};

/// Conntrack translates packets with wrong checksums, so that the translation can be compared. It keeps all fragments
/// as long as the lab exists.
const SETTINGS_OF_CONNTRACK: [(&str, &str); 3] = [
    ("net.netfilter.nf_conntrack_checksum", "0"),
    ("net.netfilter.nf_conntrack_frag6_timeout", "3600"),
    ("net.netfilter.nf_conntrack_frag6_high_thresh", "268435456"),
];

/// More flows than the scripts of a lab open, in little memory: several labs run at once.
const MAX_FLOWS: &str = "32768";

/// Both routers.
#[derive(Debug)]
pub struct Twin {
    ours: Wire,
    kernels: Wire,
    invalid: InvalidCount,
    router: RouterProcess,
}

/// What left both routers after an event.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What left our router.
    pub ours: Vec<Output>,
    /// What left the kernel's NAT.
    pub kernels: Vec<Output>,
    /// Whether conntrack found one of the packets invalid and left it untranslated.
    pub invalid: bool,
}

impl Outcome {
    /// The number of packets to compare.
    pub fn packet_count(&self) -> u64 {
        self.ours.len().max(self.kernels.len()) as u64
    }
}

/// The NAT ports of a script's flows in each lab. An unknown one is a port that neither router allocates.
#[derive(Clone, Debug)]
pub struct Bindings {
    ours: Vec<u16>,
    kernels: Vec<u16>,
}

impl Bindings {
    /// The NAT ports before a script runs.
    pub fn of(script: &Script, slot: Slot) -> Self {
        let ports = vec![slot.port_of_nobody(); script.flows.len()];
        Self {
            ours: ports.clone(),
            kernels: ports,
        }
    }
}

impl Twin {
    /// Builds both labs for scripts of one family, with a fallback of that family or of the other.
    ///
    /// # Errors
    /// Without root, or if the lab lacks something.
    pub fn start(family: Family, fallback: bool) -> Result<Self> {
        let of_other = match family {
            Family::V4 => Family::V6,
            Family::V6 => Family::V4,
        };
        let server = if fallback { family } else { of_other }
            .network()
            .fallback_server;
        let spec = Spec::dual_stack().with_fallback(server.address);
        let mut ours = Wire::new()?;
        let arguments = ["run", "--config", "-", "--max-flows", MAX_FLOWS].map(Into::into);
        let router = RouterProcess::start_in(&ours.router, &arguments, &spec.yaml())?;
        ours.open_barriers(family).context("our router")?;

        let mut kernels = Wire::new()?;
        nftables::start(&kernels.router, &spec)?;
        for (name, value) in SETTINGS_OF_CONNTRACK {
            kernels.router.set_sysctl(name, value)?;
        }
        kernels.open_barriers(family).context("the kernel's NAT")?;
        let invalid = InvalidCount::open(&kernels)?;
        Ok(Self {
            ours,
            kernels,
            invalid,
            router,
        })
    }

    /// Plays an event in both routers. Returns what left them, as if both had chosen the same numbers.
    pub fn play(
        &mut self,
        script: &Script,
        slot: Slot,
        event: &Event,
        bindings: &mut Bindings,
    ) -> Result<Outcome> {
        let invalid_before = self.invalid.read()?;
        let ours = play_in(&mut self.ours, script, slot, event, &mut bindings.ours)
            .with_context(|| format!("our router, whose log is:\n{}", self.router.log()))?;
        let kernels = play_in(
            &mut self.kernels,
            script,
            slot,
            event,
            &mut bindings.kernels,
        )
        .context("the kernel's NAT")?;
        Ok(Outcome {
            ours,
            kernels,
            invalid: self.invalid.read()? != invalid_before,
        })
    }
}

fn play_in(
    wire: &mut Wire,
    script: &Script,
    slot: Slot,
    event: &Event,
    nat_ports: &mut [u16],
) -> Result<Vec<Output>> {
    let (packets, id) = event.packets(script, slot, nat_ports[event.flow]);
    let outputs = wire.exchange(event.side, &packets)?;
    let flow = &script.flows[event.flow];
    if event.side == Side::Cluster {
        let port = outputs.iter().find_map(|output| {
            let reserved = script.family.network().router_net1.address;
            let (source, destination) = canonical::addresses(&output.packet)?;
            let (port, server_port) = canonical::ports(&output.packet)?;
            let is_of_flow = output.side == Side::Outside
                && source == reserved
                && flow.is_to_server(script.family, destination, server_port);
            is_of_flow.then_some(port)
        });
        nat_ports[event.flow] = port.unwrap_or(nat_ports[event.flow]);
    }
    let chosen = Chosen {
        nat_port: nat_ports[event.flow],
        stands_for: flow.client(script.family, slot).port(),
        sent_id: id,
    };
    Ok(canonical(outputs, chosen))
}

/// The number of packets that conntrack has found invalid in a namespace.
#[derive(Debug)]
struct InvalidCount {
    file: File,
    column: usize,
}

impl InvalidCount {
    fn open(wire: &Wire) -> Result<Self> {
        const PATH: &str = "/proc/thread-self/net/stat/nf_conntrack";
        let file = wire
            .router
            .run(|| File::open(PATH).with_context(|| format!("opening {PATH}")))?;
        let mut count = Self { file, column: 0 };
        count.column = count
            .text()?
            .lines()
            .next()
            .and_then(|names| names.split_whitespace().position(|name| name == "invalid"))
            .with_context(|| format!("{PATH} does not count invalid packets"))?;
        Ok(count)
    }

    fn text(&self) -> Result<String> {
        let mut bytes = [0; 8_192];
        let length = self
            .file
            .read_at(&mut bytes, 0)
            .context("reading the counters of connection tracking")?;
        Ok(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    /// The sum of all CPUs, which have a line each.
    fn read(&self) -> Result<u64> {
        Ok(self
            .text()?
            .lines()
            .skip(1)
            .filter_map(|line| line.split_whitespace().nth(self.column))
            .filter_map(|count| u64::from_str_radix(count, 16).ok())
            .sum())
    }
}
