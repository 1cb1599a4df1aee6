//! SCTP, whose checksum is a CRC over the whole packet.

use anyhow::{Context as _, Result, ensure};
use egress_common::{
    Outcome,
    Side::{Cluster, Egress},
};
use egress_tests::skip_unless_lab_works;

use crate::{
    bench::{Bench, FAMILIES, Family, Setup, for_each_family},
    frames::{Endpoint, Transport, assert_same, chunk, endpoints, sctp},
};

/// Chunk types (RFC 9260, section 3.2).
const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const ERROR: u8 = 9;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

/// A port that does not stay: the local port range has it.
fn client(family: &Family) -> Endpoint {
    (family.client, 40_000)
}

fn service(family: &Family) -> Endpoint {
    (family.router, 5000)
}

/// Opens an association, whose ports change both; gives what the server sees.
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
        // Of the chunks; the shortest is its own header. Not padded, so that the packet may end anywhere in a word.
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
        ensure!(out == damage(expected), "the receiver would not notice");
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
