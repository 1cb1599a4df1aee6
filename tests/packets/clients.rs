//! Packets from clients, on the cluster interface.

use anyhow::{Context as _, Result, ensure};
use egress_common::{Outcome, Side};
use egress_tests::skip_unless_lab_works;

use crate::{
    bench::{Bench, CLIENT, DATAGRAMS, FORWARD, RESERVED, ROUTER, SkBuff, WEB},
    frames::{Endpoint, Frame, Transport, assert_same, endpoints, tcp, udp},
};

const SERVICE: Endpoint = (ROUTER, 8080);
/// Outside of the local port range, so that it is kept.
const SOURCE: Endpoint = (CLIENT, 2000);

#[test]
fn a_syn_leaves_with_the_reserved_address_towards_the_rules_server() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let syn = tcp(SOURCE, SERVICE, "S");
    let out = bench.forward(Side::Cluster, &syn.bytes())?;
    assert_same(&out, &syn.translated((RESERVED, 2000), (WEB, 80)))
}

#[test]
fn every_later_packet_of_a_flow_is_translated_as_the_first() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let out = bench.forward(Side::Cluster, &tcp((CLIENT, 40_000), SERVICE, "S").bytes())?;
    let ((_, nat_port), _) = endpoints(&out)?;
    for (flags, payload) in [
        ("A", &b""[..]),
        ("PA", b"GET / HTTP/1.1\r\n\r\n"),
        ("FA", b"odd"),
    ] {
        let segment = tcp((CLIENT, 40_000), SERVICE, flags).payload(payload);
        let out = bench.forward(Side::Cluster, &segment.bytes())?;
        assert_same(&out, &segment.translated((RESERVED, nat_port), (WEB, 80)))?;
    }
    ensure!(bench.flows().len() == 1, "{:?}", bench.flows());
    Ok(())
}

#[test]
fn a_datagram_goes_to_the_rule_of_its_own_protocol() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for payload in [&b""[..], b"x", b"four", &[0xff; 1400]] {
        let datagram = udp(SOURCE, (ROUTER, 80), payload);
        let out = bench.forward(Side::Cluster, &datagram.bytes())?;
        assert_same(
            &out,
            &datagram.translated((RESERVED, 2000), (DATAGRAMS, 80)),
        )?;
    }
    // 80/TCP is no rule, 80/UDP is.
    bench.refuse(
        Side::Cluster,
        &tcp(SOURCE, (ROUTER, 80), "S").bytes(),
        Outcome::NoRule,
    )
}

#[test]
fn a_datagram_without_checksum_stays_without() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let datagram = Frame {
        transport: Transport::UdpWithoutChecksum,
        ..udp(SOURCE, (ROUTER, 80), b"payload")
    };
    let out = bench.forward(Side::Cluster, &datagram.bytes())?;
    assert_same(
        &out,
        &datagram.translated((RESERVED, 2000), (DATAGRAMS, 80)),
    )
}

#[test]
fn a_datagram_whose_new_checksum_would_be_0_gets_the_other_zero() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let mut met = 0;
    for word in 0..=u16::MAX {
        let datagram = udp(SOURCE, (ROUTER, 80), &word.to_be_bytes());
        let translated = datagram.translated((RESERVED, 2000), (DATAGRAMS, 80));
        // One of 65,536 payloads gives 0xffff, which stands for the sum 0 (RFC 768).
        if translated.bytes()[40..42] == [0xff, 0xff] {
            met += 1;
            assert_same(
                &bench.forward(Side::Cluster, &datagram.bytes())?,
                &translated,
            )?;
        }
    }
    ensure!(met > 0, "no payload led to the checksum 0");
    Ok(())
}

#[test]
fn ip_options_stay_and_the_ports_behind_them_are_found() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for words in 1..=10 {
        let segment =
            tcp((CLIENT, 2000 + words), SERVICE, "S").ip_options(&vec![1; usize::from(words) * 4]);
        let out = bench
            .forward(Side::Cluster, &segment.bytes())
            .with_context(|| format!("{words} words"))?;
        assert_same(
            &out,
            &segment.translated((RESERVED, 2000 + words), (WEB, 80)),
        )?;
    }
    Ok(())
}

#[test]
fn a_wrong_checksum_stays_wrong_by_as_much() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let segment = tcp(SOURCE, SERVICE, "S").payload(b"damaged on the way");
    let damage = |mut frame: Vec<u8>| {
        *frame.last_mut().expect("it has a payload") ^= 0x55;
        frame
    };
    let out = bench.forward(Side::Cluster, &damage(segment.bytes()))?;
    ensure!(
        out == damage(segment.translated((RESERVED, 2000), (WEB, 80)).bytes()),
        "the receiver would not notice"
    );
    Ok(())
}

#[test]
fn undefined_ports_and_foreign_addresses_are_left_to_the_stack() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let elsewhere = (std::net::Ipv4Addr::new(10, 128, 0, 101), 8080);
    bench.refuse(
        Side::Cluster,
        &tcp(SOURCE, (ROUTER, 9090), "S").bytes(),
        Outcome::NoRule,
    )?;
    bench.refuse(
        Side::Cluster,
        &udp(SOURCE, SERVICE, b"").bytes(),
        Outcome::NoRule,
    )?;
    bench.refuse(
        Side::Cluster,
        &tcp(SOURCE, elsewhere, "S").bytes(),
        Outcome::NotForRouter,
    )?;
    bench.refuse(
        Side::Cluster,
        &tcp(SOURCE, (RESERVED, 8080), "S").bytes(),
        Outcome::NotForRouter,
    )?;
    ensure!(bench.entries() == 0);
    Ok(())
}

#[test]
fn a_segment_that_can_start_no_connection_is_left_to_the_stack() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for flags in ["SA", "FA", "F", "R", "RA", "SF", "SR", ""] {
        bench.refuse(
            Side::Cluster,
            &tcp(SOURCE, SERVICE, flags).bytes(),
            Outcome::NotAnOpening,
        )?;
    }
    ensure!(bench.entries() == 0);
    Ok(())
}

#[test]
fn the_middle_of_a_connection_is_picked_up() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let segment = tcp(SOURCE, SERVICE, "PA").payload(b"after a restart");
    let out = bench.forward(Side::Cluster, &segment.bytes())?;
    assert_same(&out, &segment.translated((RESERVED, 2000), (WEB, 80)))
}

#[test]
fn a_frame_for_another_mac_is_left_alone() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for mac in [[0x02, 0, 0, 0, 0, 9], [0xff; 6], [0x01, 0, 0x5e, 0, 0, 1]] {
        let frame = Frame {
            destination_mac: mac,
            ..tcp(SOURCE, SERVICE, "S")
        };
        bench.refuse(Side::Cluster, &frame.bytes(), Outcome::OtherFrame)?;
    }
    Ok(())
}

#[test]
fn fragments_are_left_to_the_stack() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for fragment in [0x2000_u16, 0x2001, 0x0010] {
        let mut frame = udp(SOURCE, (ROUTER, 80), b"part").bytes();
        frame[20..22].copy_from_slice(&fragment.to_be_bytes());
        bench.refuse(Side::Cluster, &frame, Outcome::Fragment)?;
    }
    Ok(())
}

#[test]
fn a_segmentation_offload_packet_counts_as_its_segments() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    bench.forward(Side::Cluster, &tcp(SOURCE, SERVICE, "S").bytes())?;
    let segment = tcp(SOURCE, SERVICE, "A").payload(&[7; 3000]);
    let skb = SkBuff::of_segments(3, 1448);
    let ran = bench.run_with(Side::Cluster, &segment.bytes(), Some(&skb))?;
    ensure!(ran.verdict == FORWARD);
    assert_same(&ran.frame, &segment.translated((RESERVED, 2000), (WEB, 80)))?;
    let flow = bench.flow()?;
    ensure!(
        (flow.original.packets, flow.original.bytes) == (1 + 3, 40 + 3040),
        "{flow:?}"
    );
    let rule = &bench.dataplane.maps.rules()?[1];
    ensure!(
        (rule.flows, rule.original) == (1, flow.original),
        "{rule:?}"
    );
    Ok(())
}
