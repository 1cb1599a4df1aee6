//! Fragments: the first one identifies the flow of the others.

use anyhow::{Result, anyhow, ensure};
use egress_common::{
    Outcome,
    Side::{Cluster, Egress},
};
use egress_tests::{fragment, skip_unless_lab_works};

use crate::{
    bench::{Bench, DROP, FAMILIES, Setup, for_each_family},
    frames::{assert_same, tcp, udp},
};

fn cut(frame: &[u8], len: usize) -> Result<Vec<Vec<u8>>> {
    let (ethernet, packet) = frame.split_at(14);
    let fragments = fragment::cut(packet, len, 0x4242)?;
    Ok(fragments
        .into_iter()
        .map(|fragment| [ethernet, &fragment].concat())
        .collect())
}

/// The two fragments of a frame long enough for exactly two.
fn cut_in_two(frame: &[u8]) -> Result<[Vec<u8>; 2]> {
    let fragments = cut(frame, 1480)?;
    <[_; 2]>::try_from(fragments).map_err(|fragments| anyhow!("{} fragments", fragments.len()))
}

/// The reassembled packet, if the fragments' headers agree.
fn joined(first: &[u8], rest: &[u8], whole: &[u8]) -> Vec<u8> {
    let mut joined = [first, &rest[34..]].concat();
    // Length, fragment field and checksum are those of the whole packet.
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
    let question = udp((family.client, 2000), (family.router, 80), &[0x5a; 2500]);
    let [first, rest] = cut_in_two(&question.bytes())?;
    let first = bench.forward(Cluster, &first)?;
    let flow = bench.flow()?;
    let reserved = (flow.reserved.address, flow.reserved.port);
    let server = (flow.server.address, flow.server.port);
    let rest = bench.forward(Cluster, &rest)?;
    let whole = question.translated(reserved, server);
    assert_same(&joined(&first, &rest, &whole.bytes()), &whole)?;

    let answer = udp(server, reserved, &[0xa5; 2500]);
    let [first, rest] = cut_in_two(&answer.bytes())?;
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
    let question = udp((family.client, 2000), (family.router, 80), &[0x5a; 2500]);
    let [first, rest] = cut_in_two(&question.bytes())?;
    bench.refuse(Cluster, &rest, Outcome::FragmentHeld)?;
    bench.forward(Cluster, &first)?;
    let mut other = rest.clone();
    other[18] ^= 1;
    bench.refuse(Cluster, &other, Outcome::FragmentHeld)?;
    let mut other = rest.clone();
    other[23] = 6;
    bench.refuse(Cluster, &other, Outcome::FragmentHeld)?;
    bench.refuse(Egress, &rest, Outcome::NotForEgress)?;
    bench.forward(Cluster, &rest)?;
    Ok(())
}

#[test]
fn a_fragment_beyond_the_largest_packet_is_dropped() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let family = &FAMILIES[0];
    let question = udp((family.client, 2000), (family.router, 80), &[0x5a; 2500]);
    let [first, mut rest] = cut_in_two(&question.bytes())?;
    bench.forward(Cluster, &first)?;
    rest[20..22].copy_from_slice(&0x1fff_u16.to_be_bytes());
    bench.refuse(Cluster, &rest, Outcome::BadFragment)
}

#[test]
fn a_first_fragment_stays_as_it_is_when_others_were_held_for_it() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        let (client, service) = ((family.client, 2000), (family.router, 80));
        let question = udp(client, service, &[0x5a; 1200]);
        let fragments = cut(&question.bytes(), 120)?;
        let (held, beyond) = fragments[1..].split_at(8);
        for fragment in held {
            bench.refuse(Cluster, fragment, Outcome::FragmentHeld)?;
        }
        for fragment in beyond {
            bench.refuse(Cluster, fragment, Outcome::Fragment)?;
        }
        let first = bench.forward(Cluster, &fragments[0])?;
        let whole = question.translated((family.reserved, 2000), (family.datagrams, 80));
        // Apart from the ports, the first fragment's payload is that of the whole packet.
        let payload = whole.transport_offset();
        let expected = &whole.bytes()[payload..payload + 120];
        ensure!(first[first.len() - 120..] == *expected);
        ensure!(first.len() == fragments[0].len());
        // The later fragments are now forwarded.
        for fragment in &fragments[1..] {
            bench.forward(Cluster, fragment)?;
        }
        Ok(())
    })
}

#[test]
fn fragments_of_a_packet_of_the_pods_own_are_left_to_its_stack() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        let (client, own) = ((family.client, 2000), (family.router, 5353));
        for (side, packet, outcomes) in [
            (
                Cluster,
                udp(client, own, &[1; 100]),
                [Outcome::NoRule, Outcome::Fragment],
            ),
            (
                Egress,
                udp((family.outsider, 53), (family.reserved, 40_000), &[1; 100]),
                [Outcome::EgressOwn, Outcome::EgressOwn],
            ),
        ] {
            let fragments = cut(&packet.bytes(), 64)?;
            for (fragment, outcome) in fragments.iter().zip(outcomes) {
                bench.refuse(side, fragment, outcome)?;
            }
        }
        Ok(())
    })
}

#[test]
fn fragments_of_tcp_are_not_put_together_to_a_connection_to_the_pod() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        let to = (family.reserved, 40_000);
        // The first fragment is not an opening; a later, overlapping one might turn it into one.
        let packet = tcp((family.outsider, 4000), to, "A")
            .payload(&[1; 100])
            .bytes();
        let fragments = cut(&packet, 64)?;
        bench.refuse(Egress, &fragments[0], Outcome::EgressOwn)?;
        bench.refuse(Egress, &fragments[1], Outcome::EgressRefused)?;
        let syn = tcp((family.outsider, 4000), to, "S")
            .payload(&[1; 100])
            .bytes();
        bench.refuse(Egress, &cut(&syn, 64)?[0], Outcome::EgressRefused)
    })
}

#[test]
fn a_later_fragment_that_is_too_large_is_dropped_and_nobody_is_told() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        let question = udp((family.client, 2000), (family.router, 80), &[0x5a; 1200]);
        let [first, ..] = &cut(&question.bytes(), 160)?[..] else {
            unreachable!("there are several");
        };
        bench.forward(Cluster, first)?;
        let [_, later] = &cut(&question.bytes(), 800)?[..] else {
            unreachable!("there are two");
        };
        let mut config = bench.dataplane.maps.config()?;
        config.egress_mtu = 400;
        bench.dataplane.maps.set_config(&config)?;
        let before = bench.count(Outcome::PacketTooBig)?;
        let ran = bench.run(Cluster, later)?;
        ensure!(ran.verdict == DROP && ran.frame == *later);
        ensure!(bench.count(Outcome::PacketTooBig)? == before + 1);
        Ok(())
    })
}
