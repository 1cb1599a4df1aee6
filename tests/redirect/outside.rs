//! The external network may answer, and nothing else.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, ensure};
use egress_tests::addresses::UNDEFINED_PORT;
use egress_tests::frame::{Frame, Transport};
use egress_tests::{Capture, Connection, Lab, Network, PATIENCE, icmp, tcp, udp};

use crate::running::{A_WHILE, start};

over_each_family! {
    the_external_network_gets_nothing_into_the_cluster,
    the_external_network_gets_no_answer_from_the_address_of_eth0,
    the_external_network_opens_no_connection_to_the_pod,
    a_server_reaches_no_client_by_guessing_ports,
}

fn the_external_network_gets_nothing_into_the_cluster(network: &Network) -> Result<()> {
    skip_on_nftables!("a kernel that forwards lets the external network into the cluster");
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let in_the_cluster = Capture::on(lab.node(), "router")?;
    let at_neighbour = Capture::on(lab.neighbour(), "eth0")?;

    let victim = |port| SocketAddr::new(network.client(0).address, port);
    let _listener = tcp::listen(lab.client(), victim(UNDEFINED_PORT))?;
    let _socket = udp::bind(lab.client(), victim(UNDEFINED_PORT))?;
    expect_silence(&lab, victim(UNDEFINED_PORT))?;

    expect_nothing_crossed(network, &lab, &in_the_cluster, &at_neighbour)
}

fn the_external_network_gets_no_answer_from_the_address_of_eth0(network: &Network) -> Result<()> {
    skip_on_nftables!("Linux answers for any of its addresses on any interface");
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let in_the_cluster = Capture::on(lab.node(), "router")?;
    let at_neighbour = Capture::on(lab.neighbour(), "eth0")?;

    let _listener = tcp::listen(lab.router(), network.on_any(UNDEFINED_PORT))?;
    for port in [
        UNDEFINED_PORT,
        UNDEFINED_PORT + 1,
        network.http().port,
        network.datagram().port,
    ] {
        expect_silence(&lab, network.on_eth0(port))?;
    }
    expect_nothing_crossed(network, &lab, &in_the_cluster, &at_neighbour)
}

/// A connection fails even where a socket listens, such as for metrics; but the pod's own connections work.
fn the_external_network_opens_no_connection_to_the_pod(network: &Network) -> Result<()> {
    skip_on_nftables!("Linux answers whoever asks");
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let _listener = tcp::listen(lab.router(), network.on_any(UNDEFINED_PORT))?;
    let at_neighbour = Capture::on(lab.neighbour(), "eth0")?;
    for port in [UNDEFINED_PORT, UNDEFINED_PORT + 1, network.http().port] {
        let to = SocketAddr::new(network.router_net1.address, port);
        let refused = tcp::Connector::default()
            .timeout(A_WHILE)
            .connect(lab.neighbour(), to);
        ensure!(refused.is_err(), "{to} took a connection");
    }
    let answered = at_neighbour
        .frames()?
        .iter()
        .filter_map(Frame::packet)
        .any(|packet| {
            packet.source == network.router_net1.address
                && matches!(packet.transport, Transport::Tcp { .. })
        });
    ensure!(!answered, "there was an answer");
    tcp::connect(lab.client(), network.on_eth0(UNDEFINED_PORT))?;

    let server = SocketAddr::new(network.neighbour.address, UNDEFINED_PORT);
    let listener = tcp::listen(lab.neighbour(), server)?;
    let own = tcp::connect(lab.router(), server)?;
    let (other, _) = tcp::accept(&listener)?;
    tcp::exchange(&own, &other)
}

fn a_server_reaches_no_client_by_guessing_ports(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let at_client = Capture::on(lab.client(), "eth0")?;

    let server = udp::bind(lab.servers(), network.datagram().server())?;
    let client = udp::connect(lab.client(), network.datagram().service())?;
    let seen = udp::exchange(&client, &server, b"question", b"answer")?;
    let other_port = udp::bind(
        lab.servers(),
        SocketAddr::new(network.datagram().server().ip(), 81),
    )?;
    let other_server = udp::bind(lab.servers(), network.http().server())?;
    for stranger in [&other_port, &other_server] {
        stranger.send_to(b"unasked for", seen)?;
    }
    for port in (1..100).filter_map(|distance| seen.port().checked_add(distance)) {
        server.send_to(b"unasked for", SocketAddr::new(seen.ip(), port))?;
    }
    udp::exchange(&client, &server, b"last question", b"last answer")?;

    let answers = at_client
        .frames()?
        .iter()
        .filter_map(Frame::packet)
        .filter(|packet| packet.destination == network.client(0).address)
        .filter(|packet| matches!(packet.transport, Transport::Udp { .. }))
        .count();
    assert_eq!(
        answers, 2,
        "the client received answers that it had not asked for"
    );
    Ok(())
}

/// Tries TCP, UDP and a ping from the neighbour, and expects no answer.
fn expect_silence(lab: &Lab, address: SocketAddr) -> Result<()> {
    let datagrams = udp::connect(lab.neighbour(), address)?;
    datagrams.set_read_timeout(Some(Duration::from_millis(1)))?;
    datagrams.send(b"let me in")?;
    let ping = icmp::ping(lab.neighbour(), address.ip(), Duration::from_millis(50)).err();
    let kind = ping.as_ref().and_then(tcp::error_kind);
    ensure!(
        kind == Some(io::ErrorKind::TimedOut),
        "{} answered a ping: {ping:?}",
        address.ip()
    );
    let connecting = tcp::Connector::default().timeout(A_WHILE);
    let error = connecting.connect(lab.neighbour(), address).err();
    let kind = error.as_ref().and_then(tcp::error_kind);
    ensure!(
        kind == Some(io::ErrorKind::TimedOut),
        "{address}/tcp answered: {error:?}"
    );
    let error = udp::receive(&datagrams).err();
    let kind = error.as_ref().and_then(tcp::error_kind);
    ensure!(
        kind == Some(io::ErrorKind::WouldBlock),
        "{address}/udp answered: {error:?}"
    );
    Ok(())
}

/// Checks that no packet of the neighbour reached the cluster, that no packet of the cluster reached the neighbour, and
/// that both captures do see other traffic.
fn expect_nothing_crossed(
    network: &Network,
    lab: &Lab,
    in_the_cluster: &Capture,
    at_neighbour: &Capture,
) -> Result<()> {
    Connection::open(lab, network.http())?.exchange()?;
    in_the_cluster.wait_for("the client's own traffic", PATIENCE, |packet| {
        packet.source == network.client(0).address
    })?;
    at_neighbour.wait_for("the neighbour's attempts", PATIENCE, |packet| {
        packet.source == network.neighbour.address && network.cluster.contains(packet.destination)
    })?;
    for packet in in_the_cluster.frames()?.iter().filter_map(Frame::packet) {
        assert!(!packet.involves(network.neighbour.address), "{packet:?}");
    }
    for packet in at_neighbour.frames()?.iter().filter_map(Frame::packet) {
        if icmp::is_neighbour_discovery(&packet) {
            continue;
        }
        assert_ne!(packet.destination, network.neighbour.address, "{packet:?}");
        assert!(!network.cluster.contains(packet.source), "{packet:?}");
    }
    Ok(())
}
