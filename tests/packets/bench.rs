//! The kernel half on a test bench: loaded and filled, attached to nothing.

use std::{collections::BTreeSet, net::Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use bytemuck::Zeroable as _;
use egress_common::{Config, LAYOUT_VERSION, NatRange, Outcome, Side};
use egress_userspace::{
    dataplane::{Dataplane, FlowReport, Options, PROGRAMS},
    kernel::{self, Features},
    spec,
};
use log::LevelFilter;

/// `TC_ACT_UNSPEC`: the packet goes on to the next program, and then to the pod's own stack.
pub const PASS: i32 = -1;
/// `TC_ACT_SHOT`: the packet is dropped.
pub const DROP: i32 = 2;
/// `TC_ACT_REDIRECT`: the packet leaves by the other interface.
pub const FORWARD: i32 = 7;

pub const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 2);
pub const ROUTER: Ipv4Addr = Ipv4Addr::new(10, 128, 0, 100);
pub const RESERVED: Ipv4Addr = Ipv4Addr::new(192, 168, 12, 99);
pub const WEB: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 26);
pub const DATAGRAMS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 99);

/// The documentation's example: 80/UDP, 8080→80/TCP, 8443→443/TCP.
const SPEC: &str = include_str!("../../docs/examples/egress-router.yaml");

/// Linux's default for `net.ipv4.ip_local_port_range`.
pub const LOCAL_PORTS: (u16, u16) = (32768, 60999);

/// The loopback interface of the namespace, which `BPF_PROG_TEST_RUN` makes packets arrive on.
const LOOPBACK: u32 = 1;

pub struct Bench {
    pub dataplane: Dataplane,
}

/// A packet after the program.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub verdict: i32,
    pub frame: Vec<u8>,
}

/// `struct __sk_buff` of `linux/bpf.h`, as far as a test may set it.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub struct SkBuff {
    unused: [u32; 41],
    gso_segs: u32,
    unused_sk: u64,
    gso_size: u32,
    padding: u32,
    hwtstamp: u64,
}

impl SkBuff {
    /// A packet that stands for `segments` segments of `size` bytes of data each.
    pub fn of_segments(segments: u32, size: u32) -> Self {
        Self {
            gso_segs: segments,
            gso_size: size,
            ..Self::zeroed()
        }
    }
}

impl Bench {
    pub fn new() -> Result<Self> {
        Self::with(1024, NatRange::without(LOCAL_PORTS))
    }

    pub fn with(max_flows: u32, nat_range: NatRange) -> Result<Self> {
        let mut dataplane = Dataplane::load(&Options {
            cluster_ifindex: LOOPBACK,
            egress_ifindex: LOOPBACK,
            max_flows,
            max_rules: Options::MIN_RULES,
            log_level: LevelFilter::Off,
            features: Features { coarse_clock: true },
        })?;
        let router = spec::parse(SPEC, "example")?;
        // The namespace stays 0, so that no other test takes this for a running router.
        dataplane.maps.set_config(&Config {
            layout_version: LAYOUT_VERSION,
            nat_range,
            reserved_v4: RESERVED.into(),
            max_flows,
            ..Config::zeroed()
        })?;
        dataplane.maps.set_rules(&router)?;
        dataplane
            .maps
            .set_addresses(Side::Cluster, &BTreeSet::from([ROUTER.into()]))?;
        dataplane
            .maps
            .set_addresses(Side::Egress, &BTreeSet::from([RESERVED.into()]))?;
        Ok(Self { dataplane })
    }

    /// The frame arrives on the interface of `side`.
    pub fn run(&mut self, side: Side, frame: &[u8]) -> Result<Ran> {
        self.run_with(side, frame, None)
    }

    /// The frame arrives as a segmentation-offload packet.
    pub fn run_with(&mut self, side: Side, frame: &[u8], skb: Option<&SkBuff>) -> Result<Ran> {
        let mut out = vec![0; frame.len() + 256];
        let result = self
            .dataplane
            .program(PROGRAMS[side as usize])?
            .test_run(TestRunOptions {
                data_in: Some(frame),
                data_out: Some(&mut out),
                ctx_in: skb.map(bytemuck::bytes_of),
                ..TestRunOptions::default()
            })?;
        out.truncate(usize::try_from(result.data_size_out)?);
        Ok(Ran {
            verdict: result.return_value.cast_signed(),
            frame: out,
        })
    }

    /// The frame arrives and is forwarded; gives what leaves.
    pub fn forward(&mut self, side: Side, frame: &[u8]) -> Result<Vec<u8>> {
        let ran = self.run(side, frame)?;
        ensure!(
            ran.verdict == FORWARD,
            "verdict {} instead of {FORWARD}",
            ran.verdict
        );
        Ok(ran.frame)
    }

    /// The frame arrives and is not forwarded; it has to be untouched, and counted by this outcome and no other.
    pub fn refuse(&mut self, side: Side, frame: &[u8], outcome: Outcome) -> Result<()> {
        let before = self.counts()?;
        let ran = self.run(side, frame)?;
        let verdict = match outcome.verdict() {
            egress_common::Verdict::Pass => PASS,
            egress_common::Verdict::Drop => DROP,
        };
        ensure!(
            ran.verdict == verdict,
            "verdict {} instead of {verdict} ({outcome:?})",
            ran.verdict
        );
        ensure!(ran.frame == frame, "the frame was changed");
        for ((counted, before), after) in Outcome::ALL.iter().zip(before).zip(self.counts()?) {
            let expected = u64::from(*counted == outcome);
            ensure!(
                after - before == expected,
                "{counted:?} was counted {} times",
                after - before
            );
        }
        Ok(())
    }

    fn counts(&self) -> Result<Vec<u64>> {
        Outcome::ALL
            .iter()
            .map(|outcome| Ok(self.dataplane.maps.count(*outcome)?))
            .collect()
    }

    pub fn count(&self, outcome: Outcome) -> Result<u64> {
        Ok(self.dataplane.maps.count(outcome)?)
    }

    pub fn flows(&self) -> Vec<FlowReport> {
        self.dataplane.maps.flows(kernel::monotonic_ns())
    }

    /// The only flow.
    pub fn flow(&self) -> Result<FlowReport> {
        let mut flows = self.flows();
        ensure!(flows.len() == 1, "{} flows instead of one", flows.len());
        flows.pop().context("one flow")
    }

    /// Both entries of every flow: none may be without the other.
    pub fn entries(&self) -> usize {
        self.dataplane.maps.v4.flows.keys().flatten().count()
    }
}
