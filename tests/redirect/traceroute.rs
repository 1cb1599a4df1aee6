//! What `traceroute` learns from the router itself and from the hosts behind it.

use std::io;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use egress_tests::frame::{Frame, Packet};
use egress_tests::icmp::{self, IcmpError, Kind};
use egress_tests::{Capture, Lab, Network, PATIENCE, ethtool, requirements, socket, tcp, udp};

use crate::running::start;

over_each_family! {
    a_datagram_of_one_hop_is_answered_by_the_router,
    a_datagram_of_two_hops_is_answered_by_the_gateway_under_the_routers_address,
    a_connection_of_one_hop_is_answered_by_the_router,
    a_connection_of_two_hops_is_answered_by_the_gateway_under_the_routers_address,
    answers_are_intact_where_eth0_computes_no_checksums,
}

fn a_datagram_of_one_hop_is_answered_by_the_router(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let outside = Capture::on(lab.node(), "ext0")?;
    for payload in [1, 2, 11, 1_000] {
        send_datagram(&lab, network, 1, payload)
            .with_context(|| format!("{payload} bytes of payload"))?;
    }
    expect_nothing_for(network, &outside)
}

fn a_datagram_of_two_hops_is_answered_by_the_gateway_under_the_routers_address(
    network: &Network,
) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let outside = Capture::on(lab.node(), "ext0")?;
    send_datagram(&lab, network, 2, 11)?;
    expect_answer_of_gateway(network, &outside)
}

fn a_connection_of_one_hop_is_answered_by_the_router(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let outside = Capture::on(lab.node(), "ext0")?;
    try_to_connect(&lab, network, 1)?;
    expect_nothing_for(network, &outside)
}

fn a_connection_of_two_hops_is_answered_by_the_gateway_under_the_routers_address(
    network: &Network,
) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let outside = Capture::on(lab.node(), "ext0")?;
    try_to_connect(&lab, network, 2)?;
    expect_answer_of_gateway(network, &outside)
}

fn answers_are_intact_where_eth0_computes_no_checksums(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    if let Err(reason) = ethtool::finish_checksums_in_software(lab.router(), "eth0") {
        let test = egress_tests::function_name!();
        requirements::skipped(test, &format!("needs ethtool: {reason:#}"));
        return Ok(());
    }
    let _router = start(&lab)?;
    for hops in [1, 2] {
        for payload in [1, 2, 11, 1_000] {
            let answer = send_datagram(&lab, network, hops, payload)?;
            ensure!(
                icmp::is_intact(&answer),
                "{hops} hops, {payload} bytes of payload: {answer:02x?}"
            );
        }
        let answer = try_to_connect(&lab, network, hops)?;
        ensure!(icmp::is_intact(&answer), "{hops} hops: {answer:02x?}");
    }
    Ok(())
}

/// Sends a datagram limited to `hops` hops, and checks that the client is told.
fn send_datagram(lab: &Lab, network: &Network, hops: u8, payload: usize) -> Result<Packet> {
    let service = network.datagram().service();
    let at_client = Capture::on(lab.client(), "eth0")?;
    let client = udp::connect(lab.client(), service)?;
    socket::set_hop_limit(&client, hops)?;
    socket::receive_every_error(&client)?;
    client.send(&vec![b'?'; payload])?;
    let error = udp::receive(&client).expect_err("nobody sends anything");
    expect_unreachable(&error)?;
    answer(network, &at_client, service)
}

/// Does the same with the SYN of a connection.
fn try_to_connect(lab: &Lab, network: &Network, hops: u8) -> Result<Packet> {
    let service = network.http().service();
    let at_client = Capture::on(lab.client(), "eth0")?;
    let Err(error) = tcp::Connector::default()
        .hop_limit(hops)
        .connect(lab.client(), service)
    else {
        anyhow::bail!("{service}/tcp accepted a connection over {hops} hops");
    };
    expect_unreachable(&error)?;
    answer(network, &at_client, service)
}

/// Checks for the error that the kernel reports when it accepts the message.
fn expect_unreachable(error: &anyhow::Error) -> Result<()> {
    ensure!(
        tcp::error_kind(error) == Some(io::ErrorKind::HostUnreachable),
        "expected an exceeded hop limit: {error:#}"
    );
    Ok(())
}

/// The router's message to the client that a packet to `service` exceeded its hop limit.
fn answer(network: &Network, at_client: &Capture, service: SocketAddr) -> Result<Packet> {
    let frame = at_client.wait_for("the router's answer", PATIENCE, |packet| {
        packet.source == network.router_eth0.address
            && IcmpError::of(packet).is_some_and(|error| {
                error.kind == Kind::HopLimitExceeded
                    && error.source.ip() == network.client(0).address
                    && error.destination == service
            })
    })?;
    frame.packet().context("the frame is not an IP packet")
}

fn expect_answer_of_gateway(network: &Network, outside: &Capture) -> Result<()> {
    outside.wait_for("the gateway's answer", PATIENCE, |packet| {
        packet.source == network.gateway.address
            && packet.destination == network.router_net1.address
            && IcmpError::of(packet).is_some_and(|error| error.kind == Kind::HopLimitExceeded)
    })?;
    Ok(())
}

/// Checks that nothing was sent towards a server.
fn expect_nothing_for(network: &Network, outside: &Capture) -> Result<()> {
    for packet in outside.frames()?.iter().filter_map(Frame::packet) {
        let left = network
            .servers()
            .iter()
            .any(|server| packet.involves(server.address));
        ensure!(!left, "{packet:?}");
    }
    Ok(())
}
