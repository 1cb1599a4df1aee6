//! Attacks from the external network and from clients.

use std::net::{IpAddr, SocketAddr};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use egress_tests::tcp::exchange;
use egress_tests::{Capture, Connection, Lab, Network, fragment, tcp, udp};
use etherparse::{Icmpv4Type, Icmpv6Type, PacketBuilder, PacketBuilderStep, icmpv4, icmpv6};
use serde_json::Value;

use crate::running::start;

over_each_family! {
    connections_live_through_forged_segments_errors_and_openings_from_outside,
    connections_live_through_fragments_without_end,
}

const CONNECTIONS: usize = 20;
/// The packets of a storm.
const PACKETS: usize = 100_000;
/// Packets sent in a row before the connections are checked again.
const BURST: usize = 500;

fn connections_live_through_forged_segments_errors_and_openings_from_outside(
    network: &Network,
) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let connections = open(&lab, network)?;
    let server = network.http().server();
    let mut forged = Vec::new();
    for (number, connection) in (0_u32..).zip(&connections) {
        let reserved = connection.seen_by_server;
        // Every number except the right one: few guesses out of 2^32.
        let guess = number.wrapping_mul(0x9e37_79b9);
        for flags in ["R", "RA", "FA", "A", "S"] {
            forged.push(segment(server, reserved, guess, flags, b"")?);
        }
        forged.push(segment(server, reserved, guess, "A", b"injected")?);
        let sent = segment(reserved, server, guess, "A", b"what the router never sent")?;
        forged.extend(errors_about(
            &sent,
            network.neighbour.address,
            reserved.ip(),
        )?);
        let unsolicited = SocketAddr::new(reserved.ip(), 1024 + u16::try_from(number)?);
        let stranger = SocketAddr::new(network.neighbour.address, 4_000);
        forged.push(segment(stranger, unsolicited, guess, "S", b"")?);
        let cluster = SocketAddr::new(network.router_eth0.address, network.http().port);
        forged.push(segment(stranger, cluster, guess, "S", b"")?);
    }
    let at_client = Capture::on(lab.client(), "eth0")?;
    storm(&lab, &forged, network.router_net1.address, &connections)?;
    for frame in at_client.frames()? {
        let is_strangers =
            |packet: egress_tests::frame::Packet| packet.source == network.neighbour.address;
        ensure!(
            !frame.packet().is_some_and(is_strangers),
            "a forged packet entered the cluster"
        );
    }
    expect_established(&lab)
}

fn connections_live_through_fragments_without_end(network: &Network) -> Result<()> {
    skip_on_nftables!("it keeps fragments in a queue of its own");
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let connections = open(&lab, network)?;
    let mut endless = Vec::new();
    let service = network.datagram().service();
    for id in 1..=2_000 {
        let source = SocketAddr::new(network.client(0).address, 2_000);
        let packet = udp::packet(source, service, &[0x5a; 1_200])?;
        // Never sends the last fragment, and omits the first one of every other packet.
        let mut fragments = fragment::cut(&packet, 160, id)?;
        fragments.pop();
        if id % 2 == 0 {
            fragments.remove(0);
        }
        endless.extend(fragments);
    }
    let server = udp::bind(lab.servers(), network.datagram().server())?;
    // The server's host keeps the fragments, and needs room for those of other packets.
    for queue in [
        "net.ipv4.ipfrag_high_thresh",
        "net.ipv6.ip6frag_high_thresh",
    ] {
        lab.servers().set_sysctl(queue, "268435456")?;
    }
    thread::scope(|scope| {
        let client = scope.spawn(|| {
            endless
                .chunks(BURST)
                .cycle()
                .take(PACKETS / BURST)
                .try_for_each(|burst| fragment::send(lab.client(), service, burst))
        });
        while !client.is_finished() {
            exchange_all(&connections)?;
        }
        client.join().expect("no panic")
    })?;
    expect_established(&lab)?;
    // They do not keep other clients from sending fragments.
    let client = udp::connect(lab.client(), service)?;
    client.send(&[7; 5_000])?;
    let (received, _) = udp::receive(&server)?;
    ensure!(received == [7; 5_000], "{} bytes arrived", received.len());
    exchange_all(&connections)
}

/// Opens connections, each identified by its port at the server.
fn open(lab: &Lab, network: &Network) -> Result<Vec<Connection>> {
    let rule = network.http();
    let listener = tcp::listen(lab.servers(), rule.server())?;
    (0..CONNECTIONS)
        .map(|_| {
            let client = tcp::connect(lab.client(), rule.service())?;
            let (server, seen_by_server) = tcp::accept(&listener)?;
            Ok(Connection {
                client,
                server,
                seen_by_server,
            })
        })
        .collect()
}

/// Sends packets from the neighbour repeatedly, while the connections carry data.
fn storm(lab: &Lab, packets: &[Vec<u8>], to: IpAddr, connections: &[Connection]) -> Result<()> {
    let to = SocketAddr::new(to, 0);
    thread::scope(|scope| {
        let attacker = scope.spawn(|| {
            (0..PACKETS / packets.len())
                .try_for_each(|_| fragment::send(lab.neighbour(), to, packets))
        });
        while !attacker.is_finished() {
            exchange_all(connections)?;
        }
        attacker.join().expect("no panic")
    })?;
    exchange_all(connections)
}

fn exchange_all(connections: &[Connection]) -> Result<()> {
    for (number, connection) in connections.iter().enumerate() {
        exchange(&connection.client, &connection.server)
            .with_context(|| format!("connection {number}"))?;
    }
    Ok(())
}

/// Checks that the router still considers every connection open.
fn expect_established(lab: &Lab) -> Result<()> {
    if egress_tests::Dataplane::from_env()? == egress_tests::Dataplane::Nftables {
        return Ok(());
    }
    let flows = lab.ask("flows")?;
    let is_open = |flow: &&Value| flow["protocol"] == "TCP" && flow["state"] == "ESTABLISHED";
    let open = flows
        .as_array()
        .into_iter()
        .flatten()
        .filter(is_open)
        .count();
    ensure!(
        open == CONNECTIONS,
        "{open} of {CONNECTIONS} are open: {flows:#}"
    );
    Ok(())
}

fn ip(from: IpAddr, to: IpAddr) -> Result<PacketBuilderStep<etherparse::IpHeaders>> {
    const TTL: u8 = 64;
    Ok(match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), TTL),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), TTL),
        _ => bail!("{from} and {to} differ in address family"),
    })
}

/// A TCP segment with its IP header.
fn segment(
    from: SocketAddr,
    to: SocketAddr,
    sequence: u32,
    flags: &str,
    data: &[u8],
) -> Result<Vec<u8>> {
    let mut builder = ip(from.ip(), to.ip())?.tcp(from.port(), to.port(), sequence, 1_000);
    for flag in flags.chars() {
        builder = match flag {
            'S' => builder.syn(),
            'A' => builder.ack(sequence ^ 0xffff),
            'F' => builder.fin(),
            _ => builder.rst(),
        };
    }
    let mut packet = Vec::with_capacity(builder.size(data.len()));
    builder.write(&mut packet, data)?;
    Ok(packet)
}

/// ICMP errors about a packet, of the kinds that could end or slow down a connection.
fn errors_about(packet: &[u8], from: IpAddr, to: IpAddr) -> Result<[Vec<u8>; 3]> {
    use icmpv4::DestUnreachableHeader::{FragmentationNeeded, Host, Port};
    let mut errors = [const { Vec::new() }; 3];
    if from.is_ipv4() {
        let kinds = [Port, Host, FragmentationNeeded { next_hop_mtu: 68 }];
        for (error, kind) in errors.iter_mut().zip(kinds) {
            let kind = Icmpv4Type::DestinationUnreachable(kind);
            ip(from, to)?.icmpv4(kind).write(error, packet)?;
        }
    } else {
        let unreachable = Icmpv6Type::DestinationUnreachable;
        let kinds = [
            unreachable(icmpv6::DestUnreachableCode::Port),
            unreachable(icmpv6::DestUnreachableCode::Address),
            Icmpv6Type::PacketTooBig { mtu: 1280 },
        ];
        for (error, kind) in errors.iter_mut().zip(kinds) {
            ip(from, to)?.icmpv6(kind).write(error, packet)?;
        }
    }
    Ok(errors)
}
