//! The cost of the router's programs alone, by `BPF_PROG_TEST_RUN`: without the interfaces, and without the kernel's
//! work on the packet afterwards.
//! The programs and maps are those of a running router. The programs change the packet, so a program before them
//! restores it ([`crate::kernel::Replay`]), and its cost is subtracted.
//! A running router's own programs are run, with its own maps. As they change the packet, a program before them puts it
//! back ([`crate::kernel::Replay`]); what that one takes is subtracted.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use aya::programs::ProgramFd;
use egress_tests::addresses::{Network, V4, V6};
use egress_tests::{Lab, Rule, Spec};
use etherparse::{PacketBuilder, PacketBuilderStep, ip_number};

use crate::bench::{Bench, pinned, progress};
use crate::kernel::{self, LONGEST_FRAME, Object, Replay};
use crate::report::{RatiosOf, Row, Table};
use crate::stats::Better;

/// `TC_ACT_REDIRECT`.
const FORWARDED: i32 = 7;
/// The number of runs in a sample.
const RUNS: u32 = 20_000;
/// The number of new flows in a sample. There are free ports for all samples together.
const NEW_FLOWS: u32 = 1_000;
pub(super) const CLIENT_PORT: u16 = 5_000;
/// The client port of the first new flow.
const FIRST_NEW_PORT: u16 = CLIENT_PORT + 100;
pub(super) const TTL: u8 = 64;
/// The MAC address of the loopback interface, on which packets of `BPF_PROG_TEST_RUN` arrive.
const MAC: [u8; 6] = [0; 6];

/// The shortest frame without its frame check sequence; the longest usual one; the longest that fits into a page.
const SCTP_LENGTHS: [usize; 3] = [60, 1_396, LONGEST_FRAME];

/// One kind of packet through one program.
struct Scenario {
    name: String,
    runs: u32,
    with: Replay,
    without: Replay,
}

/// Measures every scenario.
pub fn measure(bench: &mut Bench) -> Result<Table> {
    progress("building the lab of the router's programs");
    let lab = Lab::new()?;
    allow_long_packets(&lab)?;
    let _router = lab.start_router_by(&Spec::dual_stack())?;
    let (object, cpu) = (bench.object.clone(), bench.cpu);
    let mut scenarios = lab.router().run(|| scenarios(&object))?;
    let [samples] = bench.interleave("program", Better::Lower, &mut scenarios, |scenario| {
        let sample = || pinned(cpu, || scenario.sample().map(|nanoseconds| [nanoseconds]));
        lab.router().run(sample)
    })?;
    let rows = scenarios
        .iter()
        .enumerate()
        .map(|(index, scenario)| {
            Row::of(
                scenario.name.clone(),
                samples.estimate(|value| value(index)),
            )
        })
        .collect();
    // The last scenarios are those of SCTP, the shortest packet first.
    let (short, long) = (scenarios.len() - SCTP_LENGTHS.len(), scenarios.len() - 1);
    let growth = samples.estimate(|value| value(long) / value(short)).value;
    Ok(Table {
        case: "program",
        title: "The router's programs by themselves (BPF_PROG_TEST_RUN)".into(),
        unit: "ns/packet",
        better: Better::Lower,
        rounds: bench.plan.rounds,
        ratios_of: RatiosOf::Value,
        rows,
        notes: vec![
            "Without interfaces, routing and neighbours: what the kernel does with the verdict is not in it."
                .into(),
            format!(
                "The longest SCTP packet takes {growth:.2} times what the shortest does; \
                 BPF_PROG_TEST_RUN has room for {LONGEST_FRAME} bytes, not for 9,000."
            ),
        ],
        harness_error: None,
    })
}

/// Raises the MTUs for packets longer than Ethernet's usual ones.
pub(super) fn allow_long_packets(lab: &Lab) -> Result<()> {
    let set = |names: [&str; 2]| names.map(|name| format!("link set {name} mtu 9000"));
    lab.gateway().ip(["link set node0 mtu 9000"])?;
    lab.node().ip(set(["ext0", "router"]))?;
    lab.router().ip(set(["eth0", "net1"]))
}

impl Scenario {
    /// The program's time in nanoseconds.
    fn sample(&mut self) -> Result<f64> {
        let (without, _) = self.without.run(self.runs)?;
        let (with, verdict) = self.with.run(self.runs)?;
        ensure!(
            verdict == FORWARDED,
            "{}: verdict {verdict} instead of {FORWARDED}",
            self.name
        );
        Ok((with.as_secs_f64() - without.as_secs_f64()) * 1e9)
    }
}

/// The router's programs in the thread's namespace.
struct Programs<'o> {
    object: &'o Object,
    eth0: ProgramFd,
    net1: ProgramFd,
}

/// All scenarios, with the flows that they require.
fn scenarios(object: &Object) -> Result<Vec<Scenario>> {
    let programs = Programs {
        object,
        eth0: kernel::attached("eth0", "eth0_ingress")?,
        net1: kernel::attached("net1", "net1_ingress")?,
    };
    let mut scenarios = Vec::new();
    for (family, network) in [("IPv4", V4), ("IPv6", V6)] {
        let udp = |datagram: Endpoints| udp(datagram, CLIENT_PORT);
        let client = Endpoints::from_client(&network, network.datagram());
        let server = Endpoints::from_server(&network, network.datagram());
        scenarios.push(programs.client(format!("UDP, {family}"), &udp(client)?)?);
        scenarios.push(programs.server(format!("UDP reply, {family}"), &udp(server)?)?);
        scenarios.push(programs.new_flows(&format!("UDP, new flow, {family}"), client)?);

        let client = Endpoints::from_client(&network, network.http());
        let server = Endpoints::from_server(&network, network.http());
        programs.once(&programs.eth0, &tcp(client, Flags::Syn)?)?;
        programs.once(&programs.net1, &tcp(server, Flags::SynAck)?)?;
        scenarios.push(programs.client(format!("TCP, {family}"), &tcp(client, Flags::Ack)?)?);
        scenarios.push(programs.server(format!("TCP reply, {family}"), &tcp(server, Flags::Ack)?)?);
        scenarios.push(programs.server(
            format!("ICMP error, {family}"),
            &icmp_error(&network, network.datagram())?,
        )?);
    }
    let association = Endpoints::from_client(&V4, V4.association());
    programs.once(
        &programs.eth0,
        &sctp(association, SCTP_INIT, SCTP_LENGTHS[0])?,
    )?;
    for length in SCTP_LENGTHS {
        scenarios.push(programs.client(
            format!("SCTP, {} bytes, IPv4", length + 4),
            &sctp(association, SCTP_DATA, length)?,
        )?);
    }
    Ok(scenarios)
}

impl Programs<'_> {
    fn client(&self, name: String, frame: &[u8]) -> Result<Scenario> {
        self.scenario(name, &self.eth0, frame, None, RUNS)
    }

    fn server(&self, name: String, frame: &[u8]) -> Result<Scenario> {
        self.scenario(name, &self.net1, frame, None, RUNS)
    }

    /// Datagrams that each open a new flow.
    fn new_flows(&self, name: &str, endpoints: Endpoints) -> Result<Scenario> {
        let frame = udp(endpoints, FIRST_NEW_PORT)?;
        let port_at = match endpoints.source {
            IpAddr::V4(_) => 14 + 20,
            IpAddr::V6(_) => 14 + 40,
        };
        self.scenario(
            name.to_owned(),
            &self.eth0,
            &frame,
            Some(port_at),
            NEW_FLOWS,
        )
    }

    fn scenario(
        &self,
        name: String,
        program: &ProgramFd,
        frame: &[u8],
        port_at: Option<usize>,
        runs: u32,
    ) -> Result<Scenario> {
        let mut scenario = Scenario {
            with: self.object.replay(Some(program), frame, port_at)?,
            without: self.object.replay(None, frame, port_at)?,
            name,
            runs,
        };
        // Opens the flow.
        let (_, verdict) = scenario.with.run(1)?;
        ensure!(
            verdict == FORWARDED,
            "{}: verdict {verdict} instead of {FORWARDED}",
            scenario.name
        );
        Ok(scenario)
    }

    fn once(&self, program: &ProgramFd, frame: &[u8]) -> Result<()> {
        let (_, verdict) = self.object.replay(Some(program), frame, None)?.run(1)?;
        ensure!(
            verdict == FORWARDED,
            "verdict {verdict} instead of {FORWARDED}"
        );
        Ok(())
    }
}

/// The addresses and the service's port of a packet, without the client's port.
#[derive(Clone, Copy)]
struct Endpoints {
    source: IpAddr,
    destination: IpAddr,
    /// The service's port, or the server's.
    port: u16,
    from_client: bool,
}

impl Endpoints {
    fn from_client(network: &Network, rule: Rule) -> Self {
        Self {
            source: network.client(0).address,
            destination: network.router_eth0.address,
            port: rule.port,
            from_client: true,
        }
    }

    fn from_server(network: &Network, rule: Rule) -> Self {
        Self {
            source: rule.destination.address,
            destination: network.router_net1.address,
            port: rule.target_port,
            from_client: false,
        }
    }

    /// The source and destination port. The client's port is also its NAT port.
    fn ports(&self, client: u16) -> (u16, u16) {
        if self.from_client {
            (client, self.port)
        } else {
            (self.port, client)
        }
    }

    fn builder(&self) -> Result<PacketBuilderStep<etherparse::IpHeaders>> {
        ip(
            self.source,
            self.destination,
            PacketBuilder::ethernet2(MAC, MAC),
        )
    }
}

fn ip(
    source: IpAddr,
    destination: IpAddr,
    ethernet: PacketBuilderStep<etherparse::Ethernet2Header>,
) -> Result<PacketBuilderStep<etherparse::IpHeaders>> {
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            Ok(ethernet.ipv4(source.octets(), destination.octets(), TTL))
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            Ok(ethernet.ipv6(source.octets(), destination.octets(), TTL))
        }
        _ => anyhow::bail!("{source} and {destination} differ in address family"),
    }
}

/// A datagram with 18 bytes of payload, the shortest IPv4 frame.
fn udp(endpoints: Endpoints, client_port: u16) -> Result<Vec<u8>> {
    let (source, destination) = endpoints.ports(client_port);
    let mut frame = Vec::new();
    endpoints
        .builder()?
        .udp(source, destination)
        .write(&mut frame, &[0x7f; 18])?;
    Ok(frame)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Flags {
    Syn,
    SynAck,
    Ack,
}

fn tcp(endpoints: Endpoints, flags: Flags) -> Result<Vec<u8>> {
    let (source, destination) = endpoints.ports(CLIENT_PORT);
    let mut segment = endpoints.builder()?.tcp(source, destination, 1, u16::MAX);
    if flags != Flags::Ack {
        segment = segment.syn();
    }
    if flags != Flags::Syn {
        segment = segment.ack(1);
    }
    let mut frame = Vec::new();
    segment.write(&mut frame, &[])?;
    Ok(frame)
}

/// The error "port unreachable" about the flow of [`udp`].
fn icmp_error(network: &Network, rule: Rule) -> Result<Vec<u8>> {
    let about = Endpoints {
        source: network.router_net1.address,
        destination: rule.destination.address,
        port: rule.target_port,
        from_client: true,
    };
    let inside = &udp(about, CLIENT_PORT)?[14..];
    let error = Endpoints::from_server(network, rule).builder()?;
    let mut frame = Vec::new();
    match network.cluster.address {
        IpAddr::V4(_) => error.icmpv4_raw(3, 3, [0; 4]).write(&mut frame, inside)?,
        IpAddr::V6(_) => error.icmpv6_raw(1, 4, [0; 4]).write(&mut frame, inside)?,
    }
    Ok(frame)
}

/// Chunk types (RFC 9260, section 3.2).
pub(super) const SCTP_DATA: u8 = 0;
pub(super) const SCTP_INIT: u8 = 1;

/// A packet with one chunk, in a frame of this length.
fn sctp(endpoints: Endpoints, kind: u8, length: usize) -> Result<Vec<u8>> {
    let length = length.checked_sub(14 + 20).context("no room for headers")?;
    let packet = sctp_packet(endpoints.ports(CLIENT_PORT), kind, length)?;
    let mut frame = Vec::new();
    endpoints
        .builder()?
        .write(&mut frame, ip_number::SCTP, &packet)?;
    Ok(frame)
}

/// An SCTP packet with one chunk, without its IP header.
pub(super) fn sctp_packet(
    (source, destination): (u16, u16),
    kind: u8,
    length: usize,
) -> Result<Vec<u8>> {
    const HEADER_LEN: usize = 12;
    ensure!(length >= HEADER_LEN + 4, "no room for a chunk");
    let mut packet = vec![1; length];
    packet[..2].copy_from_slice(&source.to_be_bytes());
    packet[2..4].copy_from_slice(&destination.to_be_bytes());
    // An INIT has no verification tag.
    packet[4..8].fill(u8::from(kind != SCTP_INIT));
    // Not 0, which would mean that the checksum is left to the device. A wrong checksum costs as much as a right one.
    packet[8..HEADER_LEN].fill(0xa5);
    packet[HEADER_LEN] = kind;
    let chunk = u16::try_from(length - HEADER_LEN)?;
    packet[HEADER_LEN + 2..HEADER_LEN + 4].copy_from_slice(&chunk.to_be_bytes());
    Ok(packet)
}
