//! SCTP, whose checksum is a CRC over the whole packet.

use anyhow::{Context as _, Result, ensure};
use egress_common::{
    Outcome,
    Side::{Cluster, Egress},
    sctp::chunk::{
        ABORT, COOKIE_ECHO, DATA, HEARTBEAT, INIT, INIT_ACK, SACK, SHUTDOWN, SHUTDOWN_ACK,
        SHUTDOWN_COMPLETE,
    },
};
use egress_tests::skip_unless_lab_works;
use etherparse::{NetSlice, SlicedPacket};

use crate::{
    bench::{Bench, FAMILIES, FORWARD, Family, Setup, for_each_family},
    frames::{Endpoint, Frame, Transport, assert_same, chunk, endpoints, sctp},
};

/// Chunk types that do not affect a flow's state (RFC 9260, section 3.2).
const HEARTBEAT_ACK: u8 = 5;
const ERROR: u8 = 9;
const COOKIE_ACK: u8 = 11;

/// The initiate tags of client and server.
const CLIENT_TAG: u32 = 0x0101_0101;
const SERVER_TAG: u32 = 0x0202_0202;

/// A port in the local port range, which the router does not preserve.
fn client(family: &Family) -> Endpoint {
    (family.client, 40_000)
}

fn service(family: &Family) -> Endpoint {
    (family.router, 5000)
}

/// Opens an association in which both ports change. Returns what the server sees.
fn open(bench: &mut Bench, family: &Family) -> Result<(Endpoint, Endpoint)> {
    let init = sctp(client(family), service(family), &chunk(INIT, &[1; 16]));
    let out = bench.forward(Cluster, &init.bytes())?;
    let (reserved, server) = endpoints(&out)?;
    ensure!(reserved.0 == family.reserved && reserved.1 != 40_000);
    ensure!(server == (family.associations, 36_412));
    assert_same(&out, &init.translated(reserved, server))?;
    Ok((reserved, server))
}

#[test]
fn an_association_is_translated_from_init_to_shutdown() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        let (client, service) = (client(family), service(family));
        let (reserved, server) = open(bench, family)?;
        for (side, kind) in [
            (Egress, INIT_ACK),
            (Cluster, COOKIE_ECHO),
            (Egress, COOKIE_ACK),
            (Cluster, DATA),
            (Egress, SACK),
            (Egress, HEARTBEAT),
            (Cluster, HEARTBEAT_ACK),
            (Egress, ERROR),
            (Cluster, SHUTDOWN),
            (Egress, SHUTDOWN_ACK),
            (Cluster, SHUTDOWN_COMPLETE),
            (Egress, ABORT),
        ] {
            let chunks = chunk(kind, b"of this chunk");
            if side == Cluster {
                let packet = sctp(client, service, &chunks);
                let out = bench.forward(Cluster, &packet.bytes())?;
                assert_same(&out, &packet.translated(reserved, server))?;
            } else {
                let packet = sctp(server, reserved, &chunks);
                let out = bench.forward(Egress, &packet.bytes())?;
                assert_same(&out, &packet.translated(service, client))?;
            }
        }
        let flow = bench.flow()?;
        ensure!(
            flow.protocol == "SCTP" && (flow.original.packets, flow.reply.packets) == (6, 7),
            "{flow:?}"
        );
        Ok(())
    })
}

#[test]
fn the_checksum_is_right_at_every_length() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let (client, service) = (client(family), service(family));
        let (reserved, server) = open(&mut bench, family)?;
        // Lengths of the chunks. The shortest is a chunk header only. Without padding, so that the packet may end
        // anywhere in a word.
        for len in (4..=300).chain([511, 512, 1023, 1024, 1460, 2035, 2036, 2047, 2999, 3000]) {
            let bytes: Vec<u8> = (0..=250_u8).cycle().take(len).collect();
            let packet = sctp(client, service, &bytes);
            let out = bench.forward(Cluster, &packet.bytes())?;
            assert_same(&out, &packet.translated(reserved, server))
                .with_context(|| format!("{len} bytes of chunks"))?;

            let packet = sctp(server, reserved, &bytes);
            let out = bench.forward(Egress, &packet.bytes())?;
            assert_same(&out, &packet.translated(service, client))
                .with_context(|| format!("{len} bytes of chunks, back"))?;
        }
    }
    Ok(())
}

#[test]
fn padding_behind_the_ip_packet_has_no_part_in_the_checksum() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let (reserved, server) = open(&mut bench, family)?;
        let packet = sctp(client(family), service(family), &chunk(SACK, &[]));
        let padding = [0xa5; 18];
        let out = bench.forward(Cluster, &[&packet.bytes()[..], &padding].concat())?;
        let expected = packet.translated(reserved, server).bytes();
        ensure!(out == [&expected[..], &padding].concat());
    }
    Ok(())
}

#[test]
fn a_checksum_that_is_left_to_the_device_stays_so() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let (reserved, server) = open(&mut bench, family)?;
        let packet = sctp(client(family), service(family), &chunk(DATA, b"some data"))
            .transport(Transport::SctpWithoutChecksum);
        let out = bench.forward(Cluster, &packet.bytes())?;
        assert_same(&out, &packet.translated(reserved, server))?;
    }
    Ok(())
}

#[test]
fn a_wrong_checksum_stays_wrong_by_as_much() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let (reserved, server) = open(&mut bench, family)?;
        let packet = sctp(client(family), service(family), &chunk(DATA, b"damaged"));
        let damage = |mut frame: Vec<u8>| {
            *frame.last_mut().expect("it has a chunk") ^= 0x55;
            frame
        };
        let out = bench.forward(Cluster, &damage(packet.bytes()))?;
        let expected = packet.translated(reserved, server).bytes();
        ensure!(
            out == damage(expected),
            "the receiver would not notice the damage"
        );
    }
    Ok(())
}

#[test]
fn where_no_port_changes_the_checksum_does_not_either() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let (client, service) = ((family.client, 2000), (family.router, 3868));
        let (reserved, server) = ((family.reserved, 2000), (family.associations, 3868));
        let init = sctp(client, service, &chunk(INIT, &[1; 16]));
        let out = bench.forward(Cluster, &init.bytes())?;
        assert_same(&out, &init.translated(reserved, server))?;
        let transport = init.transport_offset();
        ensure!(out[transport..] == init.bytes()[transport..]);
    }
    Ok(())
}

#[test]
fn only_a_beginning_or_the_middle_of_an_association_opens_a_flow() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        for (port, kind) in (2000..).zip([INIT, DATA, SACK, HEARTBEAT, COOKIE_ECHO]) {
            let packet = sctp((family.client, port), service(family), &chunk(kind, &[]));
            bench.forward(Cluster, &packet.bytes())?;
        }
        let before = bench.entries();
        for kind in [
            INIT_ACK,
            HEARTBEAT_ACK,
            ABORT,
            SHUTDOWN,
            SHUTDOWN_ACK,
            ERROR,
            COOKIE_ACK,
            SHUTDOWN_COMPLETE,
        ] {
            let packet = sctp(client(family), service(family), &chunk(kind, &[]));
            bench
                .refuse(Cluster, &packet.bytes(), Outcome::NotAnOpening)
                .with_context(|| format!("chunk {kind}"))?;
        }
        ensure!(bench.entries() == before);
    }
    Ok(())
}

#[test]
fn a_packet_without_a_chunk_is_malformed() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let packet = sctp(client(family), service(family), &[]);
        bench.refuse(Cluster, &packet.bytes(), Outcome::Malformed)?;
    }
    Ok(())
}

/// Continues an association until it is established.
fn establish(bench: &mut Bench, family: &Family) -> Result<(Endpoint, Endpoint)> {
    let (reserved, server) = open(bench, family)?;
    let init_ack = chunk(INIT_ACK, &[2; 16]);
    let init_ack = sctp(server, reserved, &init_ack).sequence_or_tag(CLIENT_TAG);
    let cookie = sctp(client(family), service(family), &chunk(COOKIE_ECHO, &[]));
    let cookie_ack = sctp(server, reserved, &chunk(COOKIE_ACK, &[]));
    for (side, packet, state) in [
        (Egress, init_ack, "COOKIE_WAIT"),
        (Cluster, cookie.sequence_or_tag(SERVER_TAG), "COOKIE_ECHOED"),
        (
            Egress,
            cookie_ack.sequence_or_tag(CLIENT_TAG),
            "ESTABLISHED",
        ),
    ] {
        bench.forward(side, &packet.bytes())?;
        let flow = bench.flow()?;
        ensure!(flow.state == state, "{flow:?} instead of {state}");
    }
    Ok((reserved, server))
}

#[test]
fn an_association_goes_through_its_states() -> Result<()> {
    skip_unless_lab_works!();
    for (chunk_type, state) in [(SHUTDOWN, "SHUTDOWN"), (ABORT, "CLOSED")] {
        for_each_family(Setup::default(), |bench, family| {
            establish(bench, family)?;
            let end = sctp(client(family), service(family), &chunk(chunk_type, &[]));
            bench.forward(Cluster, &end.sequence_or_tag(SERVER_TAG).bytes())?;
            let flow = bench.flow()?;
            ensure!(flow.state == state, "{flow:?} instead of {state}");
            // A new INIT on the same ports.
            let init = sctp(client(family), service(family), &chunk(INIT, &[3; 16]));
            bench.forward(Cluster, &init.sequence_or_tag(0).bytes())?;
            let flow = bench.flow()?;
            ensure!(
                flow.state == "COOKIE_WAIT" && flow.original.packets == 1,
                "{flow:?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn an_end_with_a_guessed_tag_passes_and_changes_nothing() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        let (reserved, server) = establish(bench, family)?;
        for kind in [ABORT, SHUTDOWN, SHUTDOWN_COMPLETE] {
            let forged = sctp(server, reserved, &chunk(kind, &[])).sequence_or_tag(0x7777_7777);
            bench.forward(Egress, &forged.bytes())?;
            ensure!(bench.flow()?.state == "ESTABLISHED", "after chunk {kind}");
        }
        // An INIT ACK with another tag does not help the attacker.
        let forged = sctp(server, reserved, &chunk(INIT_ACK, &[7; 16])).sequence_or_tag(CLIENT_TAG);
        bench.forward(Egress, &forged.bytes())?;
        let forged = sctp(server, reserved, &chunk(ABORT, &[])).sequence_or_tag(0x0707_0707);
        bench.forward(Egress, &forged.bytes())?;
        ensure!(bench.flow()?.state == "ESTABLISHED");
        // The server has lost the association and reflects its peer's tag.
        let abort = sctp(server, reserved, &chunk(ABORT, &[])).sequence_or_tag(SERVER_TAG);
        bench.forward(Egress, &abort.bytes())?;
        ensure!(bench.flow()?.state == "CLOSED");
        Ok(())
    })
}

/// Compares the frames without the Ethernet header and the fields that an IP header's sender may choose.
fn assert_same_transport(actual: &[u8], expected: &Frame) -> Result<()> {
    let packet = SlicedPacket::from_ethernet(actual)?;
    if let Some(NetSlice::Ipv4(ip)) = &packet.net {
        let header = ip.header();
        ensure!(header.header_checksum() == header.to_header().calc_header_checksum());
    }
    ensure!(endpoints(actual)? == (expected.source, expected.destination));
    let (payload, transport) = (packet.ip_payload(), expected.transport_offset());
    let payload = payload.context("an IP packet")?.payload;
    let expected = &expected.bytes()[transport..];
    ensure!(
        payload == expected,
        "{payload:02x?} instead of {expected:02x?}"
    );
    Ok(())
}

#[test]
fn an_association_with_a_port_of_no_rule_is_refused_by_an_abort() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let (client, undefined) = ((family.client, 2000), (family.router, 5001));
        for value in [&[1; 16][..], &[1; 100]] {
            let init = sctp(client, undefined, &chunk(INIT, value)).sequence_or_tag(0);
            let ran = bench.run(Cluster, &init.bytes())?;
            ensure!(ran.verdict == FORWARD, "verdict {}", ran.verdict);
            let abort = sctp(undefined, client, &chunk(ABORT, &[])).sequence_or_tag(CLIENT_TAG);
            assert_same_transport(&ran.frame, &abort)?;
            // The sender left the checksum to its device, so the router does, too.
            let init = init.transport(Transport::SctpWithoutChecksum);
            let ran = bench.run(Cluster, &init.bytes())?;
            let abort = abort.transport(Transport::SctpWithoutChecksum);
            assert_same_transport(&ran.frame, &abort)?;
        }
        // Any other chunk gets no answer.
        for kind in [DATA, ABORT, INIT_ACK] {
            let packet = sctp(client, undefined, &chunk(kind, &[0; 16]));
            bench.refuse(Cluster, &packet.bytes(), Outcome::NoRule)?;
        }
    }
    ensure!(bench.count(Outcome::SctpRefused)? == 2 * 2 * 2);
    ensure!(bench.entries() == 0);
    Ok(())
}
