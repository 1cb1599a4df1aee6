//! IPv6 only: extension headers, and neighbour discovery by ICMP.

use std::net::{IpAddr, Ipv6Addr};

use anyhow::{Context as _, Result};
use egress_common::{
    Outcome,
    Side::{Cluster, Egress},
};
use egress_tests::skip_unless_lab_works;
use etherparse::IpNumber;

use crate::{
    bench::{Bench, LINK_LOCAL, V6},
    frames::{Extension, Frame, Message, assert_same, chunk, icmp, sctp, tcp, udp},
};

/// Padding options (RFC 8200, section 4.2) that fill the header.
const PADDING: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
const LONG_PADDING: &[u8] = &[
    2, 1, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
];
/// Offset 0 and no more fragments (RFC 6946).
const WHOLE: &[u8] = &[0, 0, 0, 1, 2, 3, 4];

const HOP_BY_HOP: Extension = (IpNumber::IPV6_HEADER_HOP_BY_HOP, PADDING);
const LONG_HOP_BY_HOP: Extension = (IpNumber::IPV6_HEADER_HOP_BY_HOP, LONG_PADDING);
const DESTINATION: Extension = (IpNumber::IPV6_DESTINATION_OPTIONS, PADDING);
const ATOMIC_FRAGMENT: Extension = (IpNumber::IPV6_FRAGMENTATION_HEADER, WHOLE);
const LONGEST: Extension = (IpNumber::IPV6_DESTINATION_OPTIONS, &[0xff; 2047]);
/// No segments left: the packet is at its final destination.
const ROUTING: Extension = (IpNumber::IPV6_ROUTE_HEADER, &[0, 0, 0, 0, 0, 0, 0]);

const CHAINS: [&[Extension]; 7] = [
    &[HOP_BY_HOP],
    &[LONG_HOP_BY_HOP],
    &[DESTINATION],
    &[ATOMIC_FRAGMENT],
    &[ROUTING],
    &[HOP_BY_HOP, DESTINATION],
    // The order that RFC 8200 recommends.
    &[
        HOP_BY_HOP,
        DESTINATION,
        ROUTING,
        ATOMIC_FRAGMENT,
        DESTINATION,
    ],
];

/// A client's packet for a rule of each protocol, with the rule's server and target port.
fn requests() -> [(Frame, IpAddr, u16); 3] {
    let client = (V6.client, 2000);
    let init = chunk(1, &[0; 16]);
    [
        (tcp(client, (V6.router, 8080), "S"), V6.web, 80),
        (udp(client, (V6.router, 80), b"odd"), V6.datagrams, 80),
        (
            sctp(client, (V6.router, 5000), &init),
            V6.associations,
            36_412,
        ),
    ]
}

#[test]
fn extension_headers_stay_and_the_ports_behind_them_are_found() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for (request, server, port) in requests() {
        let (reserved, server) = ((V6.reserved, 2000), (server, port));
        for chain in CHAINS {
            let there = request.clone().extensions(chain);
            let out = bench
                .forward(Cluster, &there.bytes())
                .with_context(|| format!("{chain:?}"))?;
            assert_same(&out, &there.translated(reserved, server))?;

            let back = there.between(server, reserved);
            let out = bench.forward(Egress, &back.bytes())?;
            assert_same(&out, &back.translated(request.destination, request.source))?;
        }
    }
    Ok(())
}

#[test]
fn a_packet_that_is_to_be_routed_on_is_left_to_the_stack() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let segments_left: &[Extension] = &[(IpNumber::IPV6_ROUTE_HEADER, &[0, 0, 1, 0, 0, 0, 0])];
    for (request, ..) in requests() {
        let request = request.extensions(segments_left);
        bench.refuse(Cluster, &request.bytes(), Outcome::OtherProtocol)?;
    }
    Ok(())
}

#[test]
fn extension_headers_that_never_end_are_not_followed() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let many: &[Extension] = &[DESTINATION; 6];
    for (request, ..) in requests() {
        for (extensions, outcome) in [
            (many, Outcome::OtherProtocol),
            (&[LONGEST], Outcome::Malformed),
        ] {
            let request = request.clone().extensions(extensions);
            bench.refuse(Cluster, &request.bytes(), outcome)?;
        }
    }
    Ok(())
}

#[test]
fn extension_headers_longer_than_the_packet_are_malformed() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let beyond: &[Extension] = &[(IpNumber::IPV6_DESTINATION_OPTIONS, &[9, 1, 4, 0, 0, 0, 0])];
    let [(segment, ..), ..] = requests();
    let frame = segment.extensions(beyond).bytes();
    bench.refuse(Cluster, &frame, Outcome::Malformed)
}

#[test]
fn fragments_that_come_before_the_first_one_are_held_and_never_enter_the_cluster() -> Result<()> {
    skip_unless_lab_works!();
    const fn fragment(content: &'static [u8]) -> Extension {
        (IpNumber::IPV6_FRAGMENTATION_HEADER, content)
    }
    const MIDDLE: Extension = fragment(&[0, 0, 9, 1, 2, 3, 4]);
    const LAST: Extension = fragment(&[0, 0, 8, 1, 2, 3, 4]);
    let fragments: [&'static [Extension]; 3] = [&[MIDDLE], &[LAST], &[HOP_BY_HOP, LAST]];
    let mut bench = Bench::new()?;
    for (request, server, port) in requests() {
        // In a flow, too.
        bench.forward(Cluster, &request.bytes())?;
        for fragment in fragments {
            let fragment = request.clone().extensions(fragment);
            bench.refuse(Cluster, &fragment.bytes(), Outcome::FragmentHeld)?;
            let answer = fragment.between((server, port), (V6.reserved, 2000));
            bench.refuse(Egress, &answer.bytes(), Outcome::FragmentHeld)?;
            let intruder = fragment.between((server, port), request.destination);
            bench.refuse(Egress, &intruder.bytes(), Outcome::NotForEgress)?;
        }
    }
    Ok(())
}

const NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// The solicited-node multicast group of an address (RFC 4291, section 2.7.1).
fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | high & 0xff, low)
}

/// The Ethernet address of a multicast group (RFC 2464, section 7).
fn multicast_mac(group: Ipv6Addr) -> [u8; 6] {
    let [.., a, b, c, d] = group.octets();
    [0x33, 0x33, a, b, c, d]
}

/// A message of neighbour discovery about `target` (RFC 4861, section 4).
fn discovery(kind: u8, source: Ipv6Addr, destination: Ipv6Addr, target: Ipv6Addr) -> Frame {
    let link_layer_option = [1, 1, 0x02, 0, 0, 0, 0, 1];
    let message = Message {
        kind,
        code: 0,
        rest: [0; 4],
    };
    let body = [&target.octets()[..], &link_layer_option].concat();
    let frame = icmp(source.into(), destination.into(), message, &body).ttl(255);
    if destination.is_multicast() {
        frame.destination_mac(multicast_mac(destination))
    } else {
        frame
    }
}

/// What neighbours send to multicast groups, and what they send to the interface with the address `own`.
fn discoveries(own: IpAddr) -> ([Frame; 6], [Frame; 3]) {
    const LISTENER_QUERY: u8 = 130;
    const ROUTER_SOLICITATION: u8 = 133;
    const ROUTER_ADVERTISEMENT: u8 = 134;
    const SOLICITATION: u8 = 135;
    const ADVERTISEMENT: u8 = 136;
    /// Router alert (RFC 2711).
    const ALERT: Extension = (IpNumber::IPV6_HEADER_HOP_BY_HOP, &[0, 5, 2, 0, 0, 1, 0]);
    let IpAddr::V6(own) = own else {
        unreachable!("neighbour discovery is IPv6 only")
    };
    let nobody = Ipv6Addr::UNSPECIFIED;
    let to_groups = [
        discovery(SOLICITATION, NEIGHBOUR, solicited_node(own), own),
        // Duplicate address detection by a host that wants the address (RFC 4862, section 5.4).
        discovery(SOLICITATION, nobody, solicited_node(own), own),
        discovery(ADVERTISEMENT, NEIGHBOUR, ALL_NODES, NEIGHBOUR),
        discovery(ROUTER_ADVERTISEMENT, NEIGHBOUR, ALL_NODES, NEIGHBOUR),
        discovery(ROUTER_SOLICITATION, NEIGHBOUR, ALL_ROUTERS, NEIGHBOUR),
        discovery(LISTENER_QUERY, NEIGHBOUR, ALL_NODES, nobody)
            .ttl(1)
            .extensions(&[ALERT]),
    ];
    let to_us = [
        // Neighbour unreachability detection (RFC 4861, section 7.3.3).
        discovery(SOLICITATION, NEIGHBOUR, own, own),
        discovery(ADVERTISEMENT, NEIGHBOUR, own, NEIGHBOUR),
        discovery(ROUTER_ADVERTISEMENT, NEIGHBOUR, own, NEIGHBOUR),
    ];
    (to_groups, to_us)
}

#[test]
fn neighbour_discovery_on_net1_reaches_the_stack_untouched() -> Result<()> {
    skip_unless_lab_works!();
    for mut bench in [Bench::new()?, Bench::with_fallback()?] {
        for own in [V6.reserved, LINK_LOCAL] {
            let (to_groups, to_us) = discoveries(own);
            for frame in to_groups.iter().chain(&to_us) {
                bench
                    .refuse(Egress, &frame.bytes(), Outcome::EgressOwn)
                    .with_context(|| format!("{frame:?}"))?;
            }
        }
    }
    Ok(())
}

#[test]
fn neighbour_discovery_on_eth0_reaches_the_stack_untouched() -> Result<()> {
    skip_unless_lab_works!();
    for mut bench in [Bench::new()?, Bench::with_fallback()?] {
        let (to_groups, to_us) = discoveries(V6.router);
        for frame in to_groups {
            bench.refuse(Cluster, &frame.bytes(), Outcome::OtherFrame)?;
        }
        for frame in to_us {
            bench.refuse(Cluster, &frame.bytes(), Outcome::OtherProtocol)?;
        }
    }
    Ok(())
}
