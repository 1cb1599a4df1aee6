//! The fallback: the server for ports without a rule.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use egress_tests::addresses::UNDEFINED_PORT;
use egress_tests::frame::Frame;
use egress_tests::tcp::exchange;
use egress_tests::{Capture, Connection, Lab, Network, PATIENCE, Spec, icmp, tcp, udp};

use crate::running::{Running, start, start_by};

over_each_family! {
    ports_without_a_rule_lead_to_the_same_ports_of_the_fallback,
    rules_come_before_the_fallback,
    a_ping_reaches_the_fallback_and_is_answered,
    two_clients_that_ping_with_one_identifier_each_get_their_answers,
    without_a_fallback_the_router_itself_answers_a_ping,
    a_listener_in_the_pod_keeps_its_port,
    the_pods_own_connections_are_left_alone,
}

fn start_with_fallback(lab: &Lab, network: &Network) -> Result<Running> {
    let server = network.fallback_server.address;
    start_by(lab, &Spec::dual_stack().with_fallback(server))
}

fn on_fallback(network: &Network, port: u16) -> SocketAddr {
    SocketAddr::new(network.fallback_server.address, port)
}

fn ports_without_a_rule_lead_to_the_same_ports_of_the_fallback(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start_with_fallback(&lab, network)?;
    // The second port has a rule, but for the other protocol.
    for port in [UNDEFINED_PORT, network.datagram().port] {
        let connection =
            Connection::open_to(&lab, network.on_eth0(port), on_fallback(network, port))
                .with_context(|| format!("port {port}"))?;
        assert_eq!(connection.seen_by_server.ip(), network.router_net1.address);
        connection.exchange()?;
    }
    for port in [UNDEFINED_PORT, network.http().port] {
        let server = udp::bind(lab.servers(), on_fallback(network, port))?;
        let client = udp::connect(lab.client(), network.on_eth0(port))?;
        let seen = udp::exchange(&client, &server, b"question", b"answer")?;
        assert_eq!(seen.ip(), network.router_net1.address);
    }
    Ok(())
}

fn rules_come_before_the_fallback(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start_with_fallback(&lab, network)?;
    for rule in [network.http(), network.tls()] {
        Connection::open(&lab, rule)?.exchange()?;
    }
    let server = udp::bind(lab.servers(), network.datagram().server())?;
    let client = udp::connect(lab.client(), network.datagram().service())?;
    udp::exchange(&client, &server, b"question", b"answer")?;
    Ok(())
}

fn a_ping_reaches_the_fallback_and_is_answered(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start_with_fallback(&lab, network)?;
    let at_servers = Capture::on(lab.servers(), "uplink0")?;
    for identifier in [1, 1_024, u16::MAX] {
        icmp::ping_as(
            lab.client(),
            network.router_eth0.address,
            identifier,
            PATIENCE,
        )?;
    }
    at_servers.wait_for("an answer by the fallback", PATIENCE, |packet| {
        packet.protocol == icmp::protocol(packet.source)
            && packet.source == network.fallback_server.address
            && packet.destination == network.router_net1.address
    })?;
    Ok(())
}

fn two_clients_that_ping_with_one_identifier_each_get_their_answers(
    network: &Network,
) -> Result<()> {
    const IDENTIFIER: u16 = 2_000;
    let lab = Lab::builder().clients(2).build()?;
    let _router = start_with_fallback(&lab, network)?;
    for _round in 0..3 {
        for client in lab.clients() {
            icmp::ping_as(client, network.router_eth0.address, IDENTIFIER, PATIENCE)?;
        }
    }
    Ok(())
}

fn without_a_fallback_the_router_itself_answers_a_ping(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let outside = Capture::on(lab.node(), "ext0")?;
    icmp::ping(lab.client(), network.router_eth0.address, PATIENCE)?;
    let servers = network.servers();
    for packet in outside.frames()?.iter().filter_map(Frame::packet) {
        let left = servers.iter().any(|server| packet.involves(server.address));
        assert!(!left, "{packet:?}");
    }
    Ok(())
}

fn a_listener_in_the_pod_keeps_its_port(network: &Network) -> Result<()> {
    skip_on_nftables!("its fallback takes the pod's own ports too");
    let lab = Lab::new()?;
    let _router = start_with_fallback(&lab, network)?;

    let listener = tcp::listen(lab.router(), network.on_any(UNDEFINED_PORT))?;
    let client = tcp::connect(lab.client(), network.on_eth0(UNDEFINED_PORT))?;
    let (server, peer) = tcp::accept(&listener)?;
    assert_eq!(peer.ip(), network.client(0).address);
    exchange(&client, &server)?;

    let server = udp::bind(lab.router(), network.on_any(UNDEFINED_PORT))?;
    let client = udp::connect(lab.client(), network.on_eth0(UNDEFINED_PORT))?;
    let seen = udp::exchange(&client, &server, b"question", b"answer")?;
    assert_eq!(seen.ip(), network.client(0).address);
    Ok(())
}

fn the_pods_own_connections_are_left_alone(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start_with_fallback(&lab, network)?;
    let in_the_cluster = SocketAddr::new(network.client(0).address, UNDEFINED_PORT);
    let destinations = [
        (lab.client(), in_the_cluster, network.router_eth0),
        (
            lab.servers(),
            on_fallback(network, UNDEFINED_PORT),
            network.router_net1,
        ),
        (lab.servers(), network.http().server(), network.router_net1),
    ];
    for (host, address, own) in destinations {
        let place = || format!("to {address}");
        let listener = tcp::listen(host, address)?;
        let client = tcp::connect(lab.router(), address)?;
        let (server, peer) = tcp::accept(&listener)?;
        assert_eq!(peer.ip(), own.address);
        exchange(&client, &server).with_context(place)?;

        let server = udp::bind(host, address)?;
        let client = udp::connect(lab.router(), address)?;
        let seen = udp::exchange(&client, &server, b"question", b"answer").with_context(place)?;
        assert_eq!(seen.ip(), own.address);
    }
    Ok(())
}
