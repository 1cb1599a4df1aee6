//! SCTP with hand-made packets. Not every kernel has SCTP sockets.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use egress_tests::addresses::UNDEFINED_PORT;
use egress_tests::frame::{Frame, Transport};
use egress_tests::raw::RawSocket;
use egress_tests::sctp::{self, Header, chunk};
use egress_tests::{Capture, Lab, Network, PATIENCE, Protocol};

use crate::running::{outcome, start};

over_each_family! {
    an_association_is_redirected_both_ways_with_right_checksums,
    an_association_without_a_rule_is_refused_at_once,
}

const CLIENT_PORT: u16 = 20_000;
const CLIENT_TAG: u32 = 0x0123_4567;
const SERVER_TAG: u32 = !CLIENT_TAG;

fn an_association_is_redirected_both_ways_with_right_checksums(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let (rule, reserved) = (network.association(), network.router_net1.address);
    let outside = Capture::on(lab.node(), "ext0")?;
    let association = Association::open(&lab, network, rule.service(), rule.server())?;

    let ports = Transport::Sctp {
        source: association.server.peer_port,
        destination: rule.target_port,
    };
    let seen = outside.wait_for("the INIT", PATIENCE, |packet| {
        packet.source == reserved
            && packet.destination == rule.server().ip()
            && packet.transport == ports
    })?;
    let seen = seen.packet().context("the frame is not an IP packet")?;
    assert_eq!(sctp::parse(&seen.payload)?.chunk, chunk::INIT);
    association.carry_data_and_shut_down()
}

fn an_association_without_a_rule_is_refused_at_once(network: &Network) -> Result<()> {
    skip_on_nftables!("the answer is the pod's own, which may have no SCTP");
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let outside = Capture::on(lab.node(), "ext0")?;
    let client = RawSocket::connect(
        lab.client(),
        Protocol::Sctp.number(),
        network.router_eth0.address,
    )?;
    let init = Header {
        source: CLIENT_PORT,
        destination: UNDEFINED_PORT,
        verification_tag: 0,
        chunk: chunk::INIT,
    };
    let abort = Header {
        source: UNDEFINED_PORT,
        destination: CLIENT_PORT,
        // The tag of the association that the INIT would have opened (RFC 9260, section 8.4).
        verification_tag: CLIENT_TAG,
        chunk: chunk::ABORT,
    };
    client.send(&sctp::packet(init, &sctp::opening(CLIENT_TAG)))?;
    assert_eq!(receive(&client, chunk::ABORT)?, sctp::packet(abort, &[]));
    assert_eq!(outcome(&lab, "sctp_refused")?, 1);
    let left = outside
        .frames()?
        .iter()
        .filter_map(Frame::packet)
        .any(|packet| packet.protocol == Protocol::Sctp.number());
    ensure!(!left, "the INIT has left through net1");
    Ok(())
}

/// An association through the router.
pub struct Association {
    client: End,
    server: End,
}

struct End {
    socket: RawSocket,
    port: u16,
    /// The other end's port, as seen by this end.
    peer_port: u16,
    tag: u32,
}

impl Association {
    /// Opens an association from the first client to `service`, which should lead to `server`.
    pub fn open(
        lab: &Lab,
        network: &Network,
        service: SocketAddr,
        server: SocketAddr,
    ) -> Result<Self> {
        let reserved = network.router_net1.address;
        let client = RawSocket::connect(lab.client(), Protocol::Sctp.number(), service.ip())?;
        let at_server = RawSocket::connect_from(
            lab.servers(),
            Protocol::Sctp.number(),
            server.ip(),
            reserved,
        )?;
        let init = Header {
            source: CLIENT_PORT,
            destination: service.port(),
            verification_tag: 0,
            chunk: chunk::INIT,
        };
        client.send(&sctp::packet(init, &sctp::opening(CLIENT_TAG)))?;
        let received = receive(&at_server, chunk::INIT)?;
        let redirected = Header {
            source: sctp::parse(&received)?.source,
            destination: server.port(),
            ..init
        };
        assert_eq!(
            received,
            sctp::packet(redirected, &sctp::opening(CLIENT_TAG))
        );

        let association = Self {
            client: End {
                socket: client,
                port: CLIENT_PORT,
                peer_port: service.port(),
                tag: CLIENT_TAG,
            },
            server: End {
                socket: at_server,
                port: server.port(),
                peer_port: redirected.source,
                tag: SERVER_TAG,
            },
        };
        association.answer(chunk::INIT_ACK, &sctp::opening(SERVER_TAG))?;
        association.ask(chunk::COOKIE_ECHO, b"a cookie")?;
        association.answer(chunk::COOKIE_ACK, &[])?;
        Ok(association)
    }

    /// Exchanges data in both directions and shuts the association down.
    pub fn carry_data_and_shut_down(&self) -> Result<()> {
        // The length is odd, and fits every MTU on the path.
        let message: Vec<u8> = (0..=250).cycle().take(1_201).collect();
        self.ask(chunk::DATA, &sctp::data(CLIENT_TAG, &message))?;
        self.answer(chunk::SACK, &acknowledgment(CLIENT_TAG))?;
        self.answer(chunk::DATA, &sctp::data(SERVER_TAG, &message))?;
        self.ask(chunk::SACK, &acknowledgment(SERVER_TAG))?;
        self.ask(chunk::SHUTDOWN, &SERVER_TAG.to_be_bytes())?;
        self.answer(chunk::SHUTDOWN_ACK, &[])?;
        self.ask(chunk::SHUTDOWN_COMPLETE, &[])
    }

    fn ask(&self, chunk: u8, value: &[u8]) -> Result<()> {
        self.client.send(&self.server, chunk, value)
    }

    fn answer(&self, chunk: u8, value: &[u8]) -> Result<()> {
        self.server.send(&self.client, chunk, value)
    }
}

impl End {
    /// Sends a packet and checks that only the ports and the checksum have changed on arrival.
    fn send(&self, receiver: &Self, chunk: u8, value: &[u8]) -> Result<()> {
        let sent = Header {
            source: self.port,
            destination: self.peer_port,
            verification_tag: receiver.tag,
            chunk,
        };
        let expected = Header {
            source: receiver.peer_port,
            destination: receiver.port,
            ..sent
        };
        self.socket.send(&sctp::packet(sent, value))?;
        assert_eq!(
            receive(&receiver.socket, chunk)?,
            sctp::packet(expected, value)
        );
        Ok(())
    }
}

/// The value of a SACK chunk (RFC 9260, section 3.3.4) that acknowledges everything up to this number.
fn acknowledgment(transmission_sequence_number: u32) -> Vec<u8> {
    const WINDOW: u32 = 65_536;
    const NO_GAPS_NO_DUPLICATES: u32 = 0;
    [transmission_sequence_number, WINDOW, NO_GAPS_NO_DUPLICATES]
        .map(u32::to_be_bytes)
        .concat()
}

/// Waits for a packet whose first chunk has this type. A kernel with SCTP answers packets of unknown associations, so
/// others may arrive as well.
fn receive(socket: &RawSocket, chunk: u8) -> Result<Vec<u8>> {
    socket
        .receive(PATIENCE, |packet| {
            (packet.get(sctp::HEADER_LEN) == Some(&chunk)).then(|| packet.to_vec())
        })
        .with_context(|| format!("chunk type {chunk}"))
}
