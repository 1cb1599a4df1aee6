//! SCTP between the kernel's own sockets, on kernels that have them. The peers check the CRC32c of every packet unless
//! the sender has left it to the device.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use egress_tests::association::{self, Association, Listener};
use egress_tests::frame::{Frame, Transport};
use egress_tests::raw::RawSocket;
use egress_tests::sctp::{self, Header};
use egress_tests::{
    Capture, Lab, Network, PATIENCE, Protocol, Rule, Spec, ethtool, skip_unless_sctp_works,
};

use crate::running::{start, start_by};

over_each_family! {
    an_association_carries_messages_both_ways_on_several_streams,
    an_association_whose_ports_stay_is_redirected,
    an_abort_by_either_end_reaches_the_other,
    a_refused_association_is_refused_to_the_client,
    checksums_that_the_sender_has_finished_stay_right,
    a_damaged_packet_is_noticed_by_its_receiver,
}

/// In the NAT range, so the router preserves it.
const CLIENT_PORT: u16 = 20_000;
const STREAMS: u16 = 5;
/// Long enough that the sender leaves its segmentation to the device (`GSO_BY_FRAGS`), and odd. A capture on the path
/// would hide what happens to such a packet, because it makes the kernel change a copy.
const LONG: usize = 60_001;

/// The ends of an association through the router.
struct Ends {
    client: Association,
    server: Association,
    seen_by_server: SocketAddr,
    _listener: Listener,
}

fn connect(lab: &Lab, network: &Network, rule: Rule) -> Result<Ends> {
    let listener = association::listen(lab.servers(), rule.server())?;
    let source = SocketAddr::new(network.client(0).address, CLIENT_PORT);
    let client = association::connect(lab.client(), source, rule.service())?;
    let (server, seen_by_server) = listener.accept()?;
    Ok(Ends {
        client,
        server,
        seen_by_server,
        _listener: listener,
    })
}

impl Ends {
    fn exchange(&mut self) -> Result<()> {
        let long = vec![0x5a; LONG];
        for stream in 0..STREAMS {
            let question = format!("a question on stream {stream}");
            self.client
                .send(&mut self.server, stream, question.as_bytes())?;
            self.server
                .send(&mut self.client, STREAMS - 1 - stream, b"an answer")?;
        }
        self.client.send(&mut self.server, 0, &long)?;
        self.server.send(&mut self.client, 1, &long)
    }
}

/// Checks that neither end has received a packet with a wrong checksum.
fn expect_no_damage(lab: &Lab) -> Result<()> {
    for host in [lab.client(), lab.servers()] {
        let errors = association::checksum_errors(host)?;
        ensure!(
            errors == 0,
            "the {} counts {errors} wrong checksums",
            host.role()
        );
    }
    Ok(())
}

fn an_association_carries_messages_both_ways_on_several_streams(network: &Network) -> Result<()> {
    skip_unless_sctp_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let mut ends = connect(&lab, network, network.association())?;
    let reserved = SocketAddr::new(network.router_net1.address, CLIENT_PORT);
    assert_eq!(ends.seen_by_server, reserved);
    ends.exchange()?;
    let Ends {
        client, mut server, ..
    } = ends;
    client.shut_down(&mut server)?;
    expect_no_damage(&lab)
}

fn an_association_whose_ports_stay_is_redirected(network: &Network) -> Result<()> {
    skip_unless_sctp_works!();
    let rule = network.association();
    let rule = Rule {
        target_port: rule.port,
        ..rule
    };
    let lab = Lab::new()?;
    let _router = start_by(
        &lab,
        &Spec {
            rules: vec![rule],
            fallback: None,
        },
    )?;
    let mut ends = connect(&lab, network, rule)?;
    ends.exchange()?;
    let Ends {
        mut client, server, ..
    } = ends;
    server.shut_down(&mut client)?;
    expect_no_damage(&lab)
}

fn an_abort_by_either_end_reaches_the_other(network: &Network) -> Result<()> {
    skip_unless_sctp_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let Ends {
        client, mut server, ..
    } = connect(&lab, network, network.association())?;
    client.abort(&mut server)?;
    drop(server);
    let Ends {
        mut client, server, ..
    } = connect(&lab, network, network.association())?;
    server.abort(&mut client)
}

fn a_refused_association_is_refused_to_the_client(network: &Network) -> Result<()> {
    skip_unless_sctp_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let source = SocketAddr::new(network.client(0).address, CLIENT_PORT);
    let service = network.association().service();
    let error = association::connect(lab.client(), source, service)
        .err()
        .context("the connection to a port without a listener succeeded")?;
    let cause = error
        .downcast_ref::<std::io::Error>()
        .map(std::io::Error::kind);
    ensure!(
        cause == Some(std::io::ErrorKind::ConnectionRefused),
        "{error:#}"
    );
    Ok(())
}

fn checksums_that_the_sender_has_finished_stay_right(network: &Network) -> Result<()> {
    skip_unless_sctp_works!();
    let lab = Lab::new()?;
    ethtool::finish_checksums_in_software(lab.client(), "eth0")?;
    ethtool::finish_checksums_in_software(lab.servers(), "uplink0")?;
    let _router = start(&lab)?;
    let outside = Capture::on(lab.node(), "ext0")?;
    let inside = Capture::on(lab.node(), "router")?;
    let mut ends = connect(&lab, network, network.association())?;
    ends.exchange()?;
    let Ends {
        client, mut server, ..
    } = ends;
    client.shut_down(&mut server)?;
    expect_no_damage(&lab)?;
    for capture in [&outside, &inside] {
        let mut packets = 0;
        for packet in capture.frames()?.iter().filter_map(Frame::packet) {
            if matches!(packet.transport, Transport::Sctp { .. }) {
                sctp::parse(&packet.payload)?;
                packets += 1;
            }
        }
        ensure!(packets > 0, "no SCTP packet was captured");
    }
    Ok(())
}

fn a_damaged_packet_is_noticed_by_its_receiver(network: &Network) -> Result<()> {
    skip_unless_sctp_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let rule = network.association();
    let _listener = association::listen(lab.servers(), rule.server())?;
    let client = RawSocket::connect(lab.client(), Protocol::Sctp.number(), rule.service().ip())?;
    let at_server = Capture::on(lab.servers(), "uplink0")?;
    let init = Header {
        source: CLIENT_PORT,
        destination: rule.port,
        verification_tag: 0,
        chunk: sctp::chunk::INIT,
    };
    let mut damaged = sctp::packet(init, &sctp::opening(1));
    *damaged.last_mut().context("the packet is empty")? ^= 1;
    client.send(&damaged)?;
    // The intact packet takes the same path, so when it is answered the damaged one has been processed.
    client.send(&sctp::packet(init, &sctp::opening(2)))?;
    at_server.wait_for("the answer to the intact packet", PATIENCE, |packet| {
        packet.payload.get(sctp::HEADER_LEN) == Some(&sctp::chunk::INIT_ACK)
    })?;
    let errors = association::checksum_errors(lab.servers())?;
    ensure!(errors == 1, "the server counts {errors} wrong checksums");
    Ok(())
}
