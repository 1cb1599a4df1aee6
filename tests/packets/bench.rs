//! The kernel half on a test bench: loaded, with filled maps, attached to nothing.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use bytemuck::Zeroable as _;
use egress_api::RuleTable;
use egress_common::{Config, InstanceInfo, NatRange, Outcome, Side, Timeouts};
use egress_userspace::{
    dataplane::{FlowReport, Options, PROGRAMS, RuleReport},
    net::kernel::{self, Features},
};
use log::LevelFilter;

use crate::{
    frames::{Frame, Transport, chunk, echo_request, sctp, tcp, udp},
    pool::Pooled,
};

/// `TC_ACT_UNSPEC`: the packet continues to the next program, and then to the pod's own stack.
pub const PASS: i32 = -1;
/// `TC_ACT_SHOT`: the packet is dropped.
pub const DROP: i32 = 2;
/// `TC_ACT_REDIRECT`: the packet leaves through the other interface.
pub const FORWARD: i32 = 7;

/// The addresses of one family.
#[derive(Clone, Copy, Debug)]
pub struct Family {
    pub name: &'static str,
    pub client: IpAddr,
    /// The router on `eth0`, where clients connect.
    pub router: IpAddr,
    /// The router on `net1`, the source address that servers see.
    pub reserved: IpAddr,
    /// The server of 8080/TCP, at its port 80.
    pub web: IpAddr,
    /// The id of that rule.
    pub web_rule: u32,
    /// The server of 80/UDP, at its port 80.
    pub datagrams: IpAddr,
    /// The server of 5000/SCTP, at its port 36412, and of 3868/SCTP, at its port 3868.
    pub associations: IpAddr,
    /// The server for ports without a rule, on a bench with a fallback.
    pub fallback: IpAddr,
    /// A host on the external network that no client has contacted: a router or an attacker.
    pub outsider: IpAddr,
}

pub const V4: Family = Family {
    name: "IPv4",
    client: v4(10, 128, 0, 2),
    router: v4(10, 128, 0, 100),
    reserved: v4(192, 168, 12, 99),
    web: v4(203, 0, 113, 26),
    web_rule: 1,
    datagrams: v4(10, 0, 0, 99),
    associations: v4(203, 0, 113, 28),
    fallback: v4(203, 0, 113, 99),
    outsider: v4(192, 168, 12, 7),
};

pub const V6: Family = Family {
    name: "IPv6",
    client: v6(0xfd00, 0x10, 0x128, 2),
    router: v6(0xfd00, 0x10, 0x128, 0x100),
    reserved: v6(0x2001, 0xdb8, 0x12, 0x99),
    web: v6(0x2001, 0xdb8, 0x113, 0x26),
    web_rule: 6,
    datagrams: v6(0x2001, 0xdb8, 0x99, 0x99),
    associations: v6(0x2001, 0xdb8, 0x113, 0x28),
    fallback: v6(0x2001, 0xdb8, 0x113, 0x99),
    outsider: v6(0x2001, 0xdb8, 0x12, 7),
};

pub const FAMILIES: [Family; 2] = [V4, V6];

impl Family {
    /// For each protocol, a client's packet that opens a flow on a bench with a fallback, and the transport that
    /// answers it.
    ///
    /// The router has to replace the client's port.
    pub fn openings(&self) -> [(Frame, Transport); 5] {
        let client = (self.client, 40_000);
        let question = udp(client, (self.router, 80), b"question");
        [
            (
                tcp(client, (self.router, 8080), "S").payload(b"early data"),
                Transport::Tcp("SA"),
            ),
            (question.clone(), Transport::Udp),
            (
                question
                    .between((self.client, 40_001), (self.router, 80))
                    .transport(Transport::UdpWithoutChecksum),
                Transport::UdpWithoutChecksum,
            ),
            (
                sctp(client, (self.router, 5000), &chunk(1, &[1; 16])),
                Transport::Sctp,
            ),
            (
                echo_request(self.client, self.router, 40_000),
                Transport::EchoReply,
            ),
        ]
    }
}

/// An address of `net1` besides the reserved one. Every IPv6 interface has one.
pub const LINK_LOCAL: IpAddr = v6(0xfe80, 0, 0, 0x99);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(a, b, c, d))
}

const fn v6(a: u16, b: u16, c: u16, last: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last))
}

/// The rules, the same for both families. A rule's id is its position.
const SPEC: &str = include_str!("router.yaml");

/// The rule id of the fallback's flows, above those of the rules.
pub const FALLBACK_RULE: u32 = 10;

/// Linux's default for `net.ipv4.ip_local_port_range`.
pub const LOCAL_PORTS: (u16, u16) = (32768, 60999);

/// The namespace's loopback interface, on which packets of `BPF_PROG_TEST_RUN` arrive.
const LOOPBACK: u32 = 1;

pub struct Bench {
    pub dataplane: Pooled,
}

/// The settings in which benches differ.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub max_flows: u32,
    pub nat_range: NatRange,
    /// Whether ports without a rule have a server.
    pub fallback: bool,
    /// Whether the kernel half ends idle flows itself.
    pub kernel_expiry: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            max_flows: 1024,
            nat_range: NatRange::without(LOCAL_PORTS),
            fallback: false,
            kernel_expiry: false,
        }
    }
}

/// Runs a test for each family, each on a new bench.
pub fn for_each_family(
    setup: Setup,
    test: impl Fn(&mut Bench, &Family) -> Result<()>,
) -> Result<()> {
    for family in FAMILIES {
        test(&mut Bench::with(setup)?, &family).context(family.name)?;
    }
    Ok(())
}

/// The result of running the program.
#[derive(Debug, PartialEq, Eq)]
pub struct Ran {
    pub verdict: i32,
    pub frame: Vec<u8>,
}

/// `struct __sk_buff` of `linux/bpf.h`, with the fields that a test may set.
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
    /// A packet of `segments` segments with `size` bytes of data each.
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
        Self::with(Setup::default())
    }

    pub fn with_fallback() -> Result<Self> {
        Self::with(Setup {
            fallback: true,
            ..Setup::default()
        })
    }

    pub fn with(setup: Setup) -> Result<Self> {
        let mut dataplane = Pooled::take(&Options {
            cluster_ifindex: LOOPBACK,
            egress_ifindex: LOOPBACK,
            max_flows_v4: setup.max_flows,
            max_flows_v6: setup.max_flows,
            max_rules: Options::MIN_RULES,
            log_level: LevelFilter::Off,
            features: Features {
                kernel_expiry: setup.kernel_expiry,
                ..kernel::features()?
            },
        })?;
        let mut config = Config {
            nat_range: setup.nat_range,
            timeouts: Timeouts::DEFAULT,
            ..Config::zeroed()
        };
        let maps = &mut dataplane.maps;
        // The namespace stays 0, so that no other test takes this bench for a running router.
        maps.set_instance(&InstanceInfo {
            max_flows: setup.max_flows,
            ..InstanceInfo::zeroed()
        })?;
        maps.set_config(&config)?;
        maps.apply_rules(&RuleTable::from(&egress_api::parse(SPEC, "router.yaml")?))?;
        config = maps.config()?;
        let set = usize::from(config.rules_in_force());
        let rules = &mut config.rule_sets[set];
        rules.fallback_rule = FALLBACK_RULE;
        for family in FAMILIES {
            match (family.reserved, family.fallback) {
                (IpAddr::V4(reserved), IpAddr::V4(fallback)) => {
                    rules.reserved_v4 = reserved.into();
                    if setup.fallback {
                        rules.fallback_v4 = fallback.into();
                    }
                }
                (IpAddr::V6(reserved), IpAddr::V6(fallback)) => {
                    rules.reserved_v6 = reserved.into();
                    if setup.fallback {
                        rules.fallback_v6 = fallback.into();
                    }
                }
                _ => unreachable!("all addresses of a family belong to it"),
            }
        }
        maps.set_config(&config)?;
        maps.set_addresses(
            Side::Cluster,
            &FAMILIES.iter().map(|family| family.router).collect(),
        )?;
        let mut egress: BTreeSet<_> = FAMILIES.iter().map(|family| family.reserved).collect();
        egress.insert(LINK_LOCAL);
        maps.set_addresses(Side::Egress, &egress)?;
        Ok(Self { dataplane })
    }

    /// Runs the program for a frame that arrives on the interface of `side`.
    pub fn run(&mut self, side: Side, frame: &[u8]) -> Result<Ran> {
        self.run_with(side, frame, None)
    }

    /// Like `run`, for a segmentation-offload packet.
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

    /// Runs the program for a frame that must be forwarded, and returns what leaves.
    pub fn forward(&mut self, side: Side, frame: &[u8]) -> Result<Vec<u8>> {
        let ran = self.run(side, frame)?;
        ensure!(
            ran.verdict == FORWARD,
            "verdict {} instead of {FORWARD}",
            ran.verdict
        );
        Ok(ran.frame)
    }

    /// Runs the program for a frame that must not be forwarded. The frame must be unchanged or, where the outcome asks
    /// for it, replaced by an ICMP error to its sender. It must be counted by this outcome and no other.
    pub fn refuse(&mut self, side: Side, frame: &[u8], outcome: Outcome) -> Result<()> {
        let before = self.counts()?;
        let ran = self.run(side, frame)?;
        let verdict = match outcome.verdict() {
            egress_common::Verdict::Pass => PASS,
            // An ICMP error is never answered by another.
            egress_common::Verdict::Reject if !is_icmp_error(frame) => FORWARD,
            egress_common::Verdict::Drop | egress_common::Verdict::Reject => DROP,
        };
        ensure!(
            ran.verdict == verdict,
            "verdict {} instead of {verdict} ({outcome:?})",
            ran.verdict
        );
        if verdict == FORWARD {
            check_error(&ran.frame, frame)?;
        } else {
            ensure!(ran.frame == frame, "the frame was changed");
        }
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
        let flows = self.dataplane.maps.flows(kernel::monotonic_ns());
        flows.expect("the maps of a bench can be read")
    }

    /// The only flow.
    pub fn flow(&self) -> Result<FlowReport> {
        let mut flows = self.flows();
        ensure!(flows.len() == 1, "{} flows instead of one", flows.len());
        flows.pop().context("one flow")
    }

    /// The counters of the rule with this id.
    pub fn rule(&self, id: u32) -> Result<RuleReport> {
        let rules = self.dataplane.maps.rules()?;
        rules
            .into_iter()
            .find(|rule| rule.id == id)
            .with_context(|| format!("no rule {id}"))
    }

    /// The number of flow entries of both families, two for each flow.
    pub fn entries(&self) -> usize {
        let maps = &self.dataplane.maps;
        maps.v4.flows.keys().flatten().count() + maps.v6.flows.keys().flatten().count()
    }
}

/// Whether a frame has an ICMP message other than an echo.
fn is_icmp_error(frame: &[u8]) -> bool {
    let is_v4 = frame[14] >> 4 == 4;
    if is_v4 {
        let message = 14 + usize::from(frame[14] & 0x0f) * 4;
        frame[23] == 1 && !matches!(frame[message], 0 | 8)
    } else {
        frame[20] == 58 && !matches!(frame[54], 128 | 129)
    }
}

/// The sum of 16-bit words, folded according to RFC 1071: all ones if the bytes include their checksum.
pub fn folded(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    u16::try_from((sum & 0xffff) + (sum >> 16)).expect("folded twice")
}

/// Checks that a frame is an ICMP error to the sender of another frame: it comes from that frame's destination, quotes
/// its beginning, and has correct checksums.
fn check_error(error: &[u8], about: &[u8]) -> Result<()> {
    let is_v4 = about[14] >> 4 == 4;
    let (source, destination, message) = if is_v4 {
        (26..30, 30..34, 34)
    } else {
        (22..38, 38..54, 54)
    };
    ensure!(
        error[source.clone()] == about[destination.clone()],
        "the error has the wrong source"
    );
    ensure!(
        error[destination] == about[source],
        "the error has the wrong destination"
    );
    let inside = &error[message + 8..];
    ensure!(
        inside.len() >= 28 && about[14..].starts_with(inside),
        "the error quotes another packet"
    );
    if is_v4 {
        ensure!(
            error[23] == 1 && folded(&error[14..34]) == 0xffff,
            "the IP header is wrong"
        );
        ensure!(usize::from(error[16]) << 8 | usize::from(error[17]) == error.len() - 14);
        ensure!(
            folded(&error[message..]) == 0xffff,
            "the ICMP checksum is wrong"
        );
    } else {
        let len = u32::try_from(error.len() - message)?.to_be_bytes();
        let pseudo_header = [&error[22..54], &len, &[0, 0, 0, 58]].concat();
        let covered = [&pseudo_header[..], &error[message..]].concat();
        ensure!(
            error[20] == 58 && folded(&covered) == 0xffff,
            "the ICMPv6 checksum is wrong"
        );
    }
    Ok(())
}
