//! Fragments: the first one names the flow for the rest.

use anyhow::{Result, ensure};
use egress_common::{
    Outcome,
    Side::{Cluster, Egress},
};
use egress_tests::skip_unless_lab_works;

use crate::{
    bench::{Bench, FAMILIES},
    frames::{assert_same, udp},
};

/// Cuts an IPv4 frame without options into a first fragment with `len` bytes of payload, and the rest.
fn cut(frame: &[u8], len: usize) -> [Vec<u8>; 2] {
    let part = |payload: &[u8], field: u16| {
        let mut part = [&frame[..34], payload].concat();
        let total = u16::try_from(part.len() - 14).expect("a short frame");
        part[16..18].copy_from_slice(&total.to_be_bytes());
        part[20..22].copy_from_slice(&field.to_be_bytes());
        part[24..26].fill(0);
        let sum: u32 = part[14..34]
            .chunks(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
            .sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("folded twice");
        part[24..26].copy_from_slice(&checksum.to_be_bytes());
        part
    };
    let offset = u16::try_from(len / 8).expect("a short frame");
    [
        part(&frame[34..34 + len], 0x2000),
        part(&frame[34 + len..], offset),
    ]
}

/// What the fragments are together, if their headers agree.
fn joined(first: &[u8], rest: &[u8], whole: &[u8]) -> Vec<u8> {
    let mut joined = [first, &rest[34..]].concat();
    // Length, fragment field and checksum are those of the whole.
    joined[16..18].copy_from_slice(&whole[16..18]);
    joined[20..22].copy_from_slice(&whole[20..22]);
    joined[24..26].copy_from_slice(&whole[24..26]);
    joined
}

#[test]
fn a_datagram_in_fragments_arrives_as_if_it_were_whole() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let family = &FAMILIES[0];
    let question = udp((family.client, 2000), (family.router, 80), &[0x5a; 3000]);
    let [first, rest] = cut(&question.bytes(), 1480);
    let first = bench.forward(Cluster, &first)?;
    let flow = bench.flow()?;
    let reserved = (flow.reserved.address, flow.reserved.port);
    let server = (flow.server.address, flow.server.port);
    let rest = bench.forward(Cluster, &rest)?;
    let whole = question.translated(reserved, server);
    assert_same(&joined(&first, &rest, &whole.bytes()), &whole)?;

    let answer = udp(server, reserved, &[0xa5; 2500]);
    let [first, rest] = cut(&answer.bytes(), 1480);
    let first = bench.forward(Egress, &first)?;
    let rest = bench.forward(Egress, &rest)?;
    let whole = answer.translated(question.destination, question.source);
    assert_same(&joined(&first, &rest, &whole.bytes()), &whole)?;
    let flow = bench.flow()?;
    ensure!(
        (flow.original.packets, flow.reply.packets) == (2, 2),
        "{flow:?}"
    );
    Ok(())
}

#[test]
fn a_fragment_belongs_to_the_packet_of_its_own_id_protocol_and_side() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let family = &FAMILIES[0];
    let question = udp((family.client, 2000), (family.router, 80), &[0x5a; 3000]);
    let [first, rest] = cut(&question.bytes(), 1480);
    bench.refuse(Cluster, &rest, Outcome::Fragment)?;
    bench.forward(Cluster, &first)?;
    let mut other = rest.clone();
    other[18] ^= 1;
    bench.refuse(Cluster, &other, Outcome::Fragment)?;
    let mut other = rest.clone();
    other[23] = 6;
    bench.refuse(Cluster, &other, Outcome::Fragment)?;
    bench.refuse(Egress, &rest, Outcome::NotForEgress)?;
    bench.forward(Cluster, &rest)?;
    Ok(())
}

#[test]
fn a_fragment_beyond_the_largest_packet_is_dropped() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let family = &FAMILIES[0];
    let question = udp((family.client, 2000), (family.router, 80), &[0x5a; 3000]);
    let [first, mut rest] = cut(&question.bytes(), 1480);
    bench.forward(Cluster, &first)?;
    rest[20..22].copy_from_slice(&0x1fff_u16.to_be_bytes());
    bench.refuse(Cluster, &rest, Outcome::BadFragment)
}
