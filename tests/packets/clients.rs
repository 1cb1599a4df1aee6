//! Packets from clients, on the cluster interface.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result, ensure};
use egress_common::{Outcome, Side};
use egress_tests::skip_unless_lab_works;

use crate::{
    bench::{Bench, FAMILIES, FORWARD, Family, Setup, SkBuff, V4, for_each_family},
    frames::{Endpoint, Transport, assert_same, endpoints, tcp, udp},
};

/// Outside the local port range, so that the router preserves it.
fn source(family: &Family) -> Endpoint {
    (family.client, 2000)
}

fn service(family: &Family) -> Endpoint {
    (family.router, 8080)
}

#[test]
fn a_syn_leaves_with_the_reserved_address_towards_the_rules_server() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let syn = tcp(source(family), service(family), "S");
        let out = bench.forward(Side::Cluster, &syn.bytes())?;
        assert_same(
            &out,
            &syn.translated((family.reserved, 2000), (family.web, 80)),
        )?;
    }
    Ok(())
}

#[test]
fn every_later_packet_of_a_flow_is_translated_as_the_first() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        let (client, service) = ((family.client, 40_000), service(family));
        let out = bench.forward(Side::Cluster, &tcp(client, service, "S").bytes())?;
        let (reserved, server) = endpoints(&out)?;
        for (flags, payload) in [
            ("A", &b""[..]),
            ("PA", b"GET / HTTP/1.1\r\n\r\n"),
            ("FA", b"odd"),
        ] {
            let segment = tcp(client, service, flags).payload(payload);
            let out = bench.forward(Side::Cluster, &segment.bytes())?;
            assert_same(&out, &segment.translated(reserved, server))?;
        }
        ensure!(bench.flows().len() == 1, "{:?}", bench.flows());
        Ok(())
    })
}

#[test]
fn a_datagram_goes_to_the_rule_of_its_own_protocol() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        for payload in [&b""[..], b"x", b"four", &[0xff; 1400]] {
            let datagram = udp(source(family), (family.router, 80), payload);
            let out = bench.forward(Side::Cluster, &datagram.bytes())?;
            assert_same(
                &out,
                &datagram.translated((family.reserved, 2000), (family.datagrams, 80)),
            )?;
        }
        // 80/TCP has no rule, 80/UDP has one.
        bench.refuse(
            Side::Cluster,
            &tcp(source(family), (family.router, 80), "S").bytes(),
            Outcome::NoRule,
        )?;
    }
    Ok(())
}

/// IPv6 tunnels may omit the checksum, and middleboxes must let such datagrams pass (RFC 6936, section 5).
#[test]
fn a_datagram_without_checksum_stays_without() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let datagram = udp(source(family), (family.router, 80), b"payload")
            .transport(Transport::UdpWithoutChecksum);
        let out = bench.forward(Side::Cluster, &datagram.bytes())?;
        assert_same(
            &out,
            &datagram.translated((family.reserved, 2000), (family.datagrams, 80)),
        )?;
    }
    Ok(())
}

#[test]
fn a_datagram_whose_new_checksum_would_be_0_gets_0xffff() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let (reserved, server) = ((family.reserved, 2000), (family.datagrams, 80));
        let expected = udp(reserved, server, b"").ttl(63).with_checksum_0();
        // 0xffff represents the sum 0 (RFC 768).
        let checksum = expected.transport_offset() + 6;
        ensure!(expected.bytes()[checksum..checksum + 2] == [0xff, 0xff]);
        let datagram = udp(source(family), (family.router, 80), &expected.payload);
        assert_same(&bench.forward(Side::Cluster, &datagram.bytes())?, &expected)?;
    }
    Ok(())
}

#[test]
fn ip_options_stay_and_the_ports_behind_them_are_found() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for words in 1..=10 {
        let segment = tcp((V4.client, 2000 + words), service(&V4), "S").ip_options(&vec![
            1;
            usize::from(words)
                * 4
        ]);
        let out = bench
            .forward(Side::Cluster, &segment.bytes())
            .with_context(|| format!("{words} words"))?;
        assert_same(
            &out,
            &segment.translated((V4.reserved, 2000 + words), (V4.web, 80)),
        )?;
    }
    Ok(())
}

#[test]
fn a_wrong_checksum_stays_wrong_by_as_much() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let segment = tcp(source(family), service(family), "S").payload(b"damaged on the way");
        let damage = |mut frame: Vec<u8>| {
            *frame.last_mut().expect("it has a payload") ^= 0x55;
            frame
        };
        let out = bench.forward(Side::Cluster, &damage(segment.bytes()))?;
        let expected = segment.translated((family.reserved, 2000), (family.web, 80));
        ensure!(
            out == damage(expected.bytes()),
            "the receiver would not notice the damage"
        );
    }
    Ok(())
}

#[test]
fn undefined_ports_and_foreign_addresses_are_left_to_the_stack() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let elsewhere: IpAddr = match family.router {
            IpAddr::V4(_) => Ipv4Addr::new(10, 128, 0, 101).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0xfd00, 0x10, 0x128, 0, 0, 0, 0, 0x101).into(),
        };
        let source = source(family);
        for (frame, outcome) in [
            (tcp(source, (family.router, 9090), "S"), Outcome::NoRule),
            (udp(source, service(family), b""), Outcome::NoRule),
            (tcp(source, (elsewhere, 8080), "S"), Outcome::NotForRouter),
            (
                tcp(source, (family.reserved, 8080), "S"),
                Outcome::NotForRouter,
            ),
        ] {
            bench.refuse(Side::Cluster, &frame.bytes(), outcome)?;
        }
    }
    ensure!(bench.entries() == 0);
    Ok(())
}

#[test]
fn a_segment_that_can_start_no_connection_is_left_to_the_stack() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        for flags in ["SA", "FA", "F", "R", "RA", "SF", "SR", ""] {
            bench.refuse(
                Side::Cluster,
                &tcp(source(family), service(family), flags).bytes(),
                Outcome::NotAnOpening,
            )?;
        }
    }
    ensure!(bench.entries() == 0);
    Ok(())
}

#[test]
fn the_middle_of_a_connection_is_picked_up() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let segment = tcp(source(family), service(family), "PA").payload(b"after a restart");
        let out = bench.forward(Side::Cluster, &segment.bytes())?;
        assert_same(
            &out,
            &segment.translated((family.reserved, 2000), (family.web, 80)),
        )?;
    }
    Ok(())
}

#[test]
fn a_frame_for_another_mac_is_left_alone() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        for mac in [
            [0x02, 0, 0, 0, 0, 9],
            [0xff; 6],
            [0x01, 0, 0x5e, 0, 0, 1],
            [0x33, 0x33, 0, 0, 0, 1],
        ] {
            let frame = tcp(source(family), service(family), "S").destination_mac(mac);
            bench.refuse(Side::Cluster, &frame.bytes(), Outcome::OtherFrame)?;
        }
    }
    Ok(())
}

#[test]
fn a_fragment_that_comes_before_the_first_one_is_held() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for fragment in [0x2001_u16, 0x0010] {
        let mut frame = udp(source(&V4), (V4.router, 80), b"part").bytes();
        frame[20..22].copy_from_slice(&fragment.to_be_bytes());
        bench.refuse(Side::Cluster, &frame, Outcome::FragmentHeld)?;
    }
    Ok(())
}

#[test]
fn a_segmentation_offload_packet_counts_as_its_segments() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        let syn = tcp(source(family), service(family), "S").bytes();
        bench.forward(Side::Cluster, &syn)?;
        let segment = tcp(source(family), service(family), "A").payload(&[7; 3000]);
        let skb = SkBuff::of_segments(3, 1448);
        let ran = bench.run_with(Side::Cluster, &segment.bytes(), Some(&skb))?;
        ensure!(ran.verdict == FORWARD);
        let expected = segment.translated((family.reserved, 2000), (family.web, 80));
        assert_same(&ran.frame, &expected)?;
        let flow = bench.flow()?;
        let bytes = syn.len() + segment.bytes().len() - 2 * 14;
        ensure!(
            (flow.original.packets, flow.original.bytes) == (1 + 3, bytes as u64),
            "{flow:?}"
        );
        let rule = bench.rule(family.web_rule)?;
        ensure!(
            (rule.flows, rule.original) == (1, flow.original),
            "{rule:?}"
        );
        Ok(())
    })
}
