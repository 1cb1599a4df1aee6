//! SCTP, by packets made by hand: not every kernel has SCTP sockets.

use anyhow::Result;
use egress_tests::frame::Transport;
use egress_tests::raw::RawSocket;
use egress_tests::sctp::{self, Header};
use egress_tests::{Capture, Lab, Network, PATIENCE};

use crate::running::start;

over_each_family! {
    an_association_is_redirected_both_ways_with_right_checksums,
}

fn an_association_is_redirected_both_ways_with_right_checksums(network: &Network) -> Result<()> {
    const CLIENT_PORT: u16 = 20_000;
    const CLIENT_TAG: u32 = 0x0123_4567;
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let rule = network.association();
    let (router, reserved) = (network.router_eth0.address, network.router_net1.address);
    let outside = Capture::on(lab.node(), "ext0")?;
    let client = RawSocket::connect(lab.client(), sctp::PROTOCOL, router)?;
    let server_address = rule.server().ip();
    let server = RawSocket::connect_from(lab.servers(), sctp::PROTOCOL, server_address, reserved)?;

    let init = Header {
        source: CLIENT_PORT,
        destination: rule.port,
        verification_tag: 0,
        chunk: sctp::INIT,
    };
    client.send(&sctp::packet(init, CLIENT_TAG))?;
    let received = receive(&server, sctp::INIT)?;
    let nat_port = received.source;
    let redirected = Header {
        source: nat_port,
        destination: rule.target_port,
        ..init
    };
    assert_eq!(received, redirected);

    let ports = Transport::Sctp {
        source: nat_port,
        destination: rule.target_port,
    };
    let seen = outside.wait_for("the INIT", PATIENCE, |packet| {
        packet.source == reserved
            && packet.destination == server_address
            && packet.transport == ports
    })?;
    let seen = seen.packet().map(|packet| sctp::parse(&packet.payload));
    assert_eq!(seen.transpose()?, Some(redirected));

    let init_ack = Header {
        source: rule.target_port,
        destination: nat_port,
        verification_tag: CLIENT_TAG,
        chunk: sctp::INIT_ACK,
    };
    server.send(&sctp::packet(init_ack, !CLIENT_TAG))?;
    let answer = Header {
        source: rule.port,
        destination: CLIENT_PORT,
        ..init_ack
    };
    assert_eq!(receive(&client, sctp::INIT_ACK)?, answer);
    Ok(())
}

/// Waits for a packet whose first chunk is this one. A kernel that has SCTP
/// answers what it knows nothing of, so that others may come as well.
fn receive(socket: &RawSocket, chunk: u8) -> Result<Header> {
    socket.receive(PATIENCE, |packet| {
        (packet.get(sctp::HEADER_LEN) == Some(&chunk)).then(|| sctp::parse(packet))
    })?
}
