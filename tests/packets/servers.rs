//! Packets on the egress interface: answers of servers, and packets of anyone else.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use egress_common::{Outcome, Side};
use egress_tests::skip_unless_lab_works;

use crate::{
    bench::{Bench, FAMILIES, Setup, V4, for_each_family},
    frames::{Transport, assert_same, endpoints, tcp, udp},
};

#[test]
fn an_answer_leaves_eth0_with_the_routers_address_and_port() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let (client, service) = ((family.client, 40_000), (family.router, 8080));
        let out = bench.forward(Side::Cluster, &tcp(client, service, "S").bytes())?;
        let (reserved, server) = endpoints(&out)?;
        for (flags, payload) in [
            ("SA", &b""[..]),
            ("A", b""),
            ("PA", b"HTTP/1.1 200 OK\r\n"),
            ("FA", b""),
        ] {
            let answer = tcp(server, reserved, flags).payload(payload);
            let out = bench.forward(Side::Egress, &answer.bytes())?;
            assert_same(&out, &answer.translated(service, client))?;
        }
    }
    Ok(())
}

#[test]
fn an_answering_datagram_goes_back_to_its_client() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        for (port, transport) in [
            (2000, Transport::Udp),
            (2001, Transport::UdpWithoutChecksum),
        ] {
            let (client, service) = ((family.client, port), (family.router, 80));
            let (reserved, server) = ((family.reserved, port), (family.datagrams, 80));
            bench.forward(Side::Cluster, &udp(client, service, b"question").bytes())?;
            let answer = udp(reserved, server, b"").answer(transport, b"the answer");
            let out = bench.forward(Side::Egress, &answer.bytes())?;
            assert_same(&out, &answer.translated(service, client))?;
        }
    }
    Ok(())
}

#[test]
fn an_answer_with_ip_options_keeps_them() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let (client, service) = ((V4.client, 2000), (V4.router, 80));
    bench.forward(Side::Cluster, &udp(client, service, b"question").bytes())?;
    let answer = udp((V4.datagrams, 80), (V4.reserved, 2000), b"the answer").ip_options(&[1; 8]);
    let out = bench.forward(Side::Egress, &answer.bytes())?;
    assert_same(&out, &answer.translated(service, client))
}

#[test]
fn what_belongs_to_no_flow_is_the_pods_own_or_dropped() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        let (client, service) = ((family.client, 2000), (family.router, 8080));
        bench.forward(Side::Cluster, &tcp(client, service, "S").bytes())?;

        let reserved = (family.reserved, 2000);
        let outsider = (family.outsider, 4000);
        // Towards the reserved address: from an outsider, and from the flow's server with another port or protocol.
        for frame in [
            tcp(outsider, reserved, "SA"),
            tcp(outsider, (family.reserved, 8080), "A"),
            tcp((family.web, 81), reserved, "A"),
            tcp((family.web, 80), (family.reserved, 2001), "A"),
            udp((family.web, 80), reserved, b""),
        ] {
            bench.refuse(Side::Egress, &frame.bytes(), Outcome::EgressOwn)?;
        }
        // No server opens a connection to the pod.
        for flags in ["S", "SE", "SFP"] {
            for port in [1, 2000, 8080, 60_000] {
                let frame = tcp(outsider, (family.reserved, port), flags);
                bench.refuse(Side::Egress, &frame.bytes(), Outcome::EgressRefused)?;
            }
        }
        // Towards the cluster: to the router's address there with a rule's port, and to a client; from an outsider, and
        // with the client's own address and the flow's own tuple.
        for frame in [
            tcp(outsider, service, "S"),
            tcp(outsider, (family.client, 22), "S"),
            tcp(client, service, "A"),
            tcp((family.web, 80), client, "A"),
        ] {
            bench.refuse(Side::Egress, &frame.bytes(), Outcome::NotForEgress)?;
        }
        ensure!(bench.flow()?.reply.packets == 0);
        Ok(())
    })
}

#[test]
fn a_broadcast_of_ipv4_is_dropped() -> Result<()> {
    skip_unless_lab_works!();
    let everybody = IpAddr::V4(Ipv4Addr::BROADCAST);
    let frame = udp((V4.outsider, 68), (everybody, 67), b"");
    Bench::new()?.refuse(Side::Egress, &frame.bytes(), Outcome::NotForEgress)
}

#[test]
fn a_frame_for_another_mac_is_judged_by_its_address_and_never_translated() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let (client, service) = ((family.client, 2000), (family.router, 8080));
        bench.forward(Side::Cluster, &tcp(client, service, "S").bytes())?;
        for mac in [[0xff; 6], [0x02, 0, 0, 0, 0, 9], [0x01, 0, 0x5e, 0, 0, 1]] {
            let server = (family.web, 80);
            let answer = tcp(server, (family.reserved, 2000), "SA").destination_mac(mac);
            bench.refuse(Side::Egress, &answer.bytes(), Outcome::EgressOwn)?;
            let intruder = udp(server, (family.router, 53), b"").destination_mac(mac);
            bench.refuse(Side::Egress, &intruder.bytes(), Outcome::NotForEgress)?;
        }
    }
    Ok(())
}

#[test]
fn a_fragment_or_another_protocol_for_a_foreign_address_is_dropped_too() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        for (destination, outcome) in [
            (family.reserved, Outcome::EgressOwn),
            (family.router, Outcome::NotForEgress),
        ] {
            let frame = udp((family.datagrams, 80), (destination, 2000), b"payload").bytes();
            // The offset of the protocol number.
            let at = if family.client.is_ipv4() { 23 } else { 20 };
            for protocol in [2, 47, 50, 132] {
                let mut other = frame.clone();
                other[at] = protocol;
                bench.refuse(Side::Egress, &other, outcome)?;
            }
            if family.client.is_ipv4() {
                let mut fragment = frame.clone();
                fragment[20] = 0x20;
                bench.refuse(Side::Egress, &fragment, outcome)?;
            }
        }
    }
    Ok(())
}
