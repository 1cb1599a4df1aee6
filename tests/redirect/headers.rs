//! Unusual headers.

use std::net::SocketAddr;

use anyhow::Result;
use egress_tests::addresses::{DATAGRAM, HTTP, ROUTER_ETH0, ROUTER_NET1};
use egress_tests::frame::{Packet, Transport};
use egress_tests::raw::RawSocket;
use egress_tests::{
    Capture, Lab, Network, PATIENCE, Protocol, skip_unless_lab_works, socket, tcp, udp,
};

use crate::running::start;

over_each_family! {
    a_checksum_that_comes_out_as_zero_is_sent_as_all_ones,
}

fn a_checksum_that_comes_out_as_zero_is_sent_as_all_ones(network: &Network) -> Result<()> {
    // In the NAT range, so the router preserves it.
    const CLIENT_PORT: u16 = 20_000;
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let (service, server_address) = (network.datagram().service(), network.datagram().server());
    let client_address = SocketAddr::new(network.client(0).address, CLIENT_PORT);
    let reserved = SocketAddr::new(network.router_net1.address, CLIENT_PORT);
    let client = udp::connect_from(lab.client(), CLIENT_PORT, service)?;
    let server = udp::bind(lab.servers(), server_address)?;
    let at_server = Capture::on(lab.servers(), "uplink0")?;
    let at_client = Capture::on(lab.client(), "eth0")?;
    let all_ones = |source: SocketAddr, destination: SocketAddr| Transport::Udp {
        source: source.port(),
        destination: destination.port(),
        checksum: 0xffff,
    };

    let question = udp::payload_of_checksum_zero(reserved, server_address);
    RawSocket::connect(lab.client(), Protocol::Udp.number(), service.ip())?
        .send(&udp::datagram(client_address, service, &question))?;
    let expected = all_ones(reserved, server_address);
    at_server.wait_for("the question, its checksum 0xffff", PATIENCE, |packet| {
        packet.transport == expected
    })?;
    assert_eq!(udp::receive(&server)?, (question, reserved));

    let answer = udp::payload_of_checksum_zero(service, client_address);
    RawSocket::connect_from(
        lab.servers(),
        Protocol::Udp.number(),
        server_address.ip(),
        reserved.ip(),
    )?
    .send(&udp::datagram(server_address, reserved, &answer))?;
    let expected = all_ones(service, client_address);
    at_client.wait_for("the answer, its checksum 0xffff", PATIENCE, |packet| {
        packet.transport == expected
    })?;
    assert_eq!(udp::receive(&client)?, (answer, service));
    Ok(())
}

#[test]
fn a_datagram_without_checksum_stays_without_checksum() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let at_server = Capture::on(lab.servers(), "uplink0")?;
    let at_client = Capture::on(lab.client(), "eth0")?;

    let server = udp::bind(lab.servers(), DATAGRAM.server())?;
    let client = udp::connect(lab.client(), DATAGRAM.service())?;
    socket::send_without_checksum(&server)?;
    socket::send_without_checksum(&client)?;
    let seen = udp::exchange(&client, &server, b"no checksum", b"none either")?;

    let transport = |source, destination| Transport::Udp {
        source,
        destination,
        checksum: 0,
    };
    let question = transport(seen.port(), DATAGRAM.target_port);
    at_server.wait_for("the question, its checksum 0", PATIENCE, |packet| {
        packet.transport == question
    })?;
    let answer = transport(DATAGRAM.port, client.local_addr()?.port());
    at_client.wait_for("the answer, its checksum 0", PATIENCE, |packet| {
        packet.transport == answer
    })?;
    Ok(())
}

#[test]
fn ip_options_pass_both_ways() -> Result<()> {
    // Record route (RFC 791, section 3.1): type 7, length 15, pointer to the first of three slots; then the end of the
    // list. A server answers with the same option.
    const RECORD_ROUTE: [u8; 16] = [7, 15, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let at_server = Capture::on(lab.servers(), "uplink0")?;
    let at_client = Capture::on(lab.client(), "eth0")?;

    let listener = tcp::listen(lab.servers(), HTTP.server())?;
    let client = tcp::Connector::default()
        .ip_options(&RECORD_ROUTE)
        .connect(lab.client(), HTTP.service())?;
    let (server, _) = tcp::accept(&listener)?;
    for _ in 0..10 {
        tcp::send(&client, &server, &[b'q'; 3_000])?;
        tcp::send(&server, &client, &[b'a'; 3_000])?;
    }

    let records = |packet: &Packet| packet.ip_options.starts_with(&RECORD_ROUTE[..2]);
    at_server.wait_for("a question that records its route", PATIENCE, |packet| {
        packet.source == ROUTER_NET1.address && records(packet)
    })?;
    at_client.wait_for("an answer that records its route", PATIENCE, |packet| {
        packet.source == ROUTER_ETH0.address && records(packet)
    })?;
    Ok(())
}
