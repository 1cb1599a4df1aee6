//! Trace records cover the packets that match the filter, and no others.

use anyhow::{Context as _, Result, ensure};
use egress_common::{
    Decision, Ipv4Address, Ipv6Address, Outcome, Port,
    Side::{Cluster, Egress},
    Subscriber, TraceFilter, protocol,
};
use egress_tests::skip_unless_lab_works;
use egress_userspace::{
    dataplane::{FoundFlow, Listener, TracedPacket},
    net::kernel,
};
use std::net::IpAddr;

use crate::{
    bench::{Bench, FAMILIES},
    frames::{Frame, echo_request, endpoints, tcp, udp},
};

const FORWARDED: Decision = Decision::Forwarded {
    is_addressed: false,
};

/// A kernel half with a `trace` subscriber. `index` is not an interface's, so that each test claims a different
/// subscription.
fn traced(index: u32, filter: &TraceFilter) -> Result<(Bench, Listener)> {
    let bench = Bench::new()?;
    let subscriber = bench.dataplane.maps.subscribe(Subscriber::Trace)?;
    let mut listener = subscriber.listen(0x4000_0000 + index)?;
    listener.set_filter(filter)?;
    listener.renew(kernel::monotonic_ns())?;
    Ok((bench, listener))
}

fn packets(listener: &mut Listener) -> Result<Vec<TracedPacket>> {
    let mut packets = Vec::new();
    while let Some(packet) = listener.next_record(TracedPacket::read) {
        packets.push(packet.context("a record that cannot be read")?);
    }
    Ok(packets)
}

fn one(listener: &mut Listener) -> Result<TracedPacket> {
    let packets = packets(listener)?;
    match &packets[..] {
        [packet] => Ok(packet.clone()),
        _ => anyhow::bail!("expected one packet: {packets:#?}"),
    }
}

fn client(address: IpAddr) -> TraceFilter {
    match address {
        IpAddr::V4(address) => TraceFilter::ANY.client(&Ipv4Address::from(address), 32),
        IpAddr::V6(address) => TraceFilter::ANY.client(&Ipv6Address::from(address), 128),
    }
}

#[test]
fn both_directions_of_a_clients_connection_are_traced_from_its_opening_on() -> Result<()> {
    skip_unless_lab_works!();
    for (number, family) in (1201..).zip(FAMILIES) {
        let (mut bench, mut trace) = traced(number, &client(family.client))?;
        let syn = tcp((family.client, 2000), (family.router, 8080), "S").bytes();
        let (reserved, server) = endpoints(&bench.forward(Cluster, &syn)?)?;
        let packet = one(&mut trace)?;
        ensure!(
            packet.side == Cluster && packet.found == FoundFlow::Opened,
            "{packet:#?}"
        );
        ensure!(packet.decision == FORWARDED, "{packet:#?}");
        ensure!(packet.length as usize == syn.len(), "{packet:#?}");
        let flow = packet.flow.context("no flow")?;
        ensure!(flow == bench.flow()?, "{flow:#?}");
        let headers = packet.packet.context("no headers")?;
        ensure!(headers.flags == ["SYN"], "{headers:#?}");
        ensure!(
            (headers.source, headers.destination) == (flow.client, flow.router),
            "{headers:#?}"
        );

        bench.forward(Egress, &tcp(server, reserved, "SA").bytes())?;
        let packet = one(&mut trace)?;
        ensure!(
            packet.side == Egress && packet.found == FoundFlow::Found { packets_before: 0 },
            "{packet:#?}"
        );
        ensure!(
            packet.packet.context("no headers")?.flags == ["SYN", "ACK"]
                && packet.flow.context("no flow")?.client == flow.client
        );

        let ack = tcp((family.client, 2000), (family.router, 8080), "A").bytes();
        bench.forward(Cluster, &ack)?;
        let packet = one(&mut trace)?;
        ensure!(
            packet.found == FoundFlow::Found { packets_before: 1 },
            "{packet:#?}"
        );

        // A reset, and a new connection on the same ports.
        bench.forward(
            Cluster,
            &tcp((family.client, 2000), (family.router, 8080), "RA").bytes(),
        )?;
        bench.forward(Cluster, &syn)?;
        let packets = packets(&mut trace)?;
        ensure!(
            packets.last().map(|it| it.found) == Some(FoundFlow::Reopened),
            "{packets:#?}"
        );
    }
    Ok(())
}

#[test]
fn a_packet_that_is_not_forwarded_is_traced_with_its_outcome() -> Result<()> {
    skip_unless_lab_works!();
    for (number, family) in (1211..).zip(FAMILIES) {
        let (mut bench, mut trace) = traced(number, &TraceFilter::ANY)?;
        let client = (family.client, 2000);
        let service = (family.router, 8080);
        let mut check = |side, frame: &Frame, outcome: Outcome| -> Result<()> {
            bench.refuse(side, &frame.bytes(), outcome)?;
            let packet = one(&mut trace)?;
            ensure!(
                packet.decision == Decision::Refused(outcome) && packet.side == side,
                "{packet:#?}"
            );
            ensure!(packet.found == FoundFlow::None, "{packet:#?}");
            ensure!(packet.flow.is_none(), "{packet:#?}");
            Ok(())
        };
        check(
            Cluster,
            &udp(client, (family.router, 9), b""),
            Outcome::NoRule,
        )?;
        check(Cluster, &tcp(client, service, "F"), Outcome::NotAnOpening)?;
        check(
            Cluster,
            &tcp(client, (family.outsider, 8080), "S"),
            Outcome::NotForRouter,
        )?;
        check(
            Cluster,
            &echo_request(family.client, family.router, 7),
            Outcome::NoRule,
        )?;
        check(
            Egress,
            &udp((family.outsider, 53), (family.reserved, 53), b""),
            Outcome::EgressOwn,
        )?;
        check(
            Egress,
            &udp((family.outsider, 53), (family.client, 53), b""),
            Outcome::NotForEgress,
        )?;
    }
    Ok(())
}

#[test]
fn only_packets_that_the_filter_admits_are_traced() -> Result<()> {
    skip_unless_lab_works!();
    for (number, family) in (1221..).zip(FAMILIES) {
        let mut filter = client(family.client);
        filter.port = Port::new(8080);
        filter.protocol = protocol::TCP;
        let (mut bench, mut trace) = traced(number, &filter)?;
        let client = (family.client, 2000);
        // Another port, another protocol, another client, and a packet of no flow.
        let others = [
            (Cluster, tcp(client, (family.router, 9), "S")),
            (Cluster, udp(client, (family.router, 80), b"")),
            (
                Cluster,
                tcp((family.outsider, 2000), (family.router, 8080), "S"),
            ),
            (
                Egress,
                tcp((family.outsider, 2000), (family.reserved, 8080), "S"),
            ),
        ];
        for (side, frame) in others {
            bench.run(side, &frame.bytes())?;
            ensure!(packets(&mut trace)?.is_empty(), "{frame:?}");
        }
        bench.forward(Cluster, &tcp(client, (family.router, 8080), "S").bytes())?;
        one(&mut trace)?;
    }
    Ok(())
}

#[test]
fn nothing_is_traced_without_a_subscriber_or_after_its_lease() -> Result<()> {
    skip_unless_lab_works!();
    let (mut bench, mut trace) = traced(1231, &TraceFilter::ANY)?;
    // The lease has expired, as after its process was killed.
    trace.renew(0)?;
    for family in FAMILIES {
        let frame = udp((family.client, 2000), (family.router, 80), b"").bytes();
        bench.forward(Cluster, &frame)?;
    }
    ensure!(packets(&mut trace)?.is_empty());
    trace.renew(kernel::monotonic_ns())?;
    for family in FAMILIES {
        let frame = udp((family.client, 2000), (family.router, 80), b"").bytes();
        bench.forward(Cluster, &frame)?;
    }
    ensure!(packets(&mut trace)?.len() == FAMILIES.len());
    Ok(())
}

#[test]
fn frames_of_every_length_are_traced_as_far_as_they_can_be_read() -> Result<()> {
    skip_unless_lab_works!();
    let (mut bench, mut trace) = traced(1241, &TraceFilter::ANY)?;
    for family in FAMILIES {
        let frame = udp((family.client, 2000), (family.router, 80), &[7; 300]).bytes();
        for len in 14..frame.len() {
            // The kernel refuses to run a program on a frame that ends within the first bytes of the IP header.
            if bench.run(Cluster, &frame[..len]).is_err() {
                continue;
            }
            let packet = one(&mut trace)?;
            ensure!(packet.length as usize == len, "{packet:#?}");
            let decision = Decision::Refused(Outcome::Truncated);
            ensure!(packet.decision == decision, "{len}: {packet:#?}");
        }
    }
    Ok(())
}
