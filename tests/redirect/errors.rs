//! ICMP errors about clients' traffic, which must reach the clients.

use std::io;
use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};
use egress_tests::frame::Frame;
use egress_tests::icmp::{IcmpError, Kind};
use egress_tests::{Capture, Connection, Lab, Network, PATIENCE, bulk, socket, tcp, udp};

use crate::running::start;

over_each_family! {
    a_client_learns_that_the_servers_port_is_closed,
    a_client_learns_that_its_hop_limit_was_too_low,
    an_upload_finds_the_mtu_of_the_path,
    an_error_about_no_flow_reaches_no_client,
    an_error_sent_straight_at_a_client_does_not_enter,
}

fn a_client_learns_that_the_servers_port_is_closed(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let at_client = Capture::on(lab.client(), "eth0")?;

    let client = udp::connect(lab.client(), network.datagram().service())?;
    client.send(b"anybody?")?;
    expect_refused(&client)?;

    let expected = port_unreachable(client.local_addr()?, network.datagram().service());
    at_client.wait_for("the error from the router", PATIENCE, |packet| {
        packet.source == network.router_eth0.address && IcmpError::of(packet) == Some(expected)
    })?;
    Ok(())
}

fn a_client_learns_that_its_hop_limit_was_too_low(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let at_client = Capture::on(lab.client(), "eth0")?;

    let client = udp::connect(lab.client(), network.datagram().service())?;
    // The router is the first hop, the gateway the second.
    socket::set_hop_limit(&client, 2)?;
    client.send(b"how far is it?")?;

    let expected = IcmpError {
        kind: Kind::HopLimitExceeded,
        source: client.local_addr()?,
        destination: network.datagram().service(),
    };
    at_client.wait_for("the gateway's error", PATIENCE, |packet| {
        packet.destination == network.client(0).address && IcmpError::of(packet) == Some(expected)
    })?;
    Ok(())
}

fn an_upload_finds_the_mtu_of_the_path(network: &Network) -> Result<()> {
    const MTU: u32 = 1_300;
    const BYTES: u64 = 2_000_000;
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    // The server does not know this MTU, so its MSS does not reflect it.
    lab.gateway().ip([format!(
        "route replace {} via {} mtu {MTU}",
        network.http_server, network.servers_uplink.address
    )])?;

    let connection = Connection::open(&lab, network.http())?;
    bulk::compare(connection.client, connection.server, BYTES, 1)?;

    let router = network.router_eth0.address.to_string();
    let route = lab.client().output("ip", ["route", "get", &router])?;
    ensure!(route.contains(&format!("mtu {MTU}")), "{route}");
    Ok(())
}

fn an_error_about_no_flow_reaches_no_client(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let Flow {
        client,
        server,
        seen,
    } = Flow::open(&lab, network)?;
    let at_client = Capture::on(lab.client(), "eth0")?;

    let server_address = network.datagram().server();
    let other = |address: SocketAddr| SocketAddr::new(address.ip(), address.port() - 1);
    let strangers = [
        (other(seen), server_address),
        (seen, other(server_address)),
        (seen, network.http().server()),
    ];
    for (source, destination) in strangers {
        port_unreachable(source, destination).send(lab.neighbour())?;
    }
    udp::exchange(&client, &server, b"question", b"answer").context("after errors about others")?;
    for packet in at_client.frames()?.iter().filter_map(Frame::packet) {
        assert_eq!(IcmpError::of(&packet), None);
    }

    // Any host on the path may report an error about the flow.
    port_unreachable(seen, server_address).send(lab.neighbour())?;
    expect_refused(&client)
}

fn an_error_sent_straight_at_a_client_does_not_enter(network: &Network) -> Result<()> {
    skip_on_nftables!("a kernel that forwards lets the external network into the cluster");
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let Flow { client, server, .. } = Flow::open(&lab, network)?;
    let at_neighbour = Capture::on(lab.neighbour(), "eth0")?;
    let at_client = Capture::on(lab.client(), "eth0")?;

    // The neighbour's route to the cluster leads through the router.
    let address = SocketAddr::new(network.client(0).address, client.local_addr()?.port());
    let error = port_unreachable(address, network.datagram().service());
    error.send(lab.neighbour())?;
    at_neighbour.wait_for("the forged error", PATIENCE, |packet| {
        IcmpError::of(packet) == Some(error)
    })?;
    udp::exchange(&client, &server, b"question", b"answer")?;
    for packet in at_client.frames()?.iter().filter_map(Frame::packet) {
        assert_eq!(IcmpError::of(&packet), None);
    }
    Ok(())
}

/// A UDP flow, and its client's address as the server sees it.
struct Flow {
    client: UdpSocket,
    server: UdpSocket,
    seen: SocketAddr,
}

impl Flow {
    fn open(lab: &Lab, network: &Network) -> Result<Self> {
        let server = udp::bind(lab.servers(), network.datagram().server())?;
        let client = udp::connect(lab.client(), network.datagram().service())?;
        let seen = udp::exchange(&client, &server, b"question", b"answer")?;
        Ok(Self {
            client,
            server,
            seen,
        })
    }
}

const fn port_unreachable(source: SocketAddr, destination: SocketAddr) -> IcmpError {
    IcmpError {
        kind: Kind::PortUnreachable,
        source,
        destination,
    }
}

/// Checks that an error has ended the client's wait.
fn expect_refused(client: &UdpSocket) -> Result<()> {
    let error = udp::receive(client).expect_err("nobody sends anything");
    ensure!(
        tcp::error_kind(&error) == Some(io::ErrorKind::ConnectionRefused),
        "expected a refusal: {error:#}"
    );
    Ok(())
}
