//! Packets on the egress interface: answers of servers, and everybody else.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use egress_common::{Outcome, Side};
use egress_tests::skip_unless_lab_works;

use crate::{
    bench::{Bench, CLIENT, DATAGRAMS, RESERVED, ROUTER, WEB},
    frames::{Frame, Transport, assert_same, endpoints, tcp, udp},
};

#[test]
fn an_answer_leaves_eth0_with_the_routers_address_and_port() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let (client, service) = ((CLIENT, 40_000), (ROUTER, 8080));
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
    Ok(())
}

#[test]
fn an_answering_datagram_goes_back_to_its_client() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for (port, transport) in [
        (2000, Transport::Udp),
        (2001, Transport::UdpWithoutChecksum),
    ] {
        let question = udp((CLIENT, port), (ROUTER, 80), b"question");
        bench.forward(Side::Cluster, &question.bytes())?;
        let answer = udp((DATAGRAMS, 80), (RESERVED, port), b"").answer(transport, b"the answer");
        let answer = answer
            .translated((DATAGRAMS, 80), (RESERVED, port))
            .ip_options(&[1; 8]);
        let out = bench.forward(Side::Egress, &answer.bytes())?;
        assert_same(&out, &answer.translated((ROUTER, 80), (CLIENT, port)))?;
    }
    Ok(())
}

#[test]
fn what_belongs_to_no_flow_is_the_pods_own_or_dropped() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    bench.forward(
        Side::Cluster,
        &tcp((CLIENT, 2000), (ROUTER, 8080), "S").bytes(),
    )?;

    let neighbour = (Ipv4Addr::new(192, 168, 12, 7), 4000);
    // Towards the reserved address: an outsider, and the flow's server from another port or with another protocol.
    for frame in [
        tcp(neighbour, (RESERVED, 2000), "S"),
        tcp(neighbour, (RESERVED, 8080), "S"),
        tcp((WEB, 81), (RESERVED, 2000), "A"),
        tcp((WEB, 80), (RESERVED, 2001), "A"),
        udp((WEB, 80), (RESERVED, 2000), b""),
    ] {
        bench.refuse(Side::Egress, &frame.bytes(), Outcome::EgressOwn)?;
    }
    // Towards the cluster: the router's address there, with a rule's port, and a client; by an outsider or with the
    // client's own address and the flow's own tuple.
    for frame in [
        tcp(neighbour, (ROUTER, 8080), "S"),
        tcp(neighbour, (CLIENT, 22), "S"),
        tcp((CLIENT, 2000), (ROUTER, 8080), "A"),
        tcp((WEB, 80), (CLIENT, 2000), "A"),
        udp(neighbour, (Ipv4Addr::BROADCAST, 67), b""),
    ] {
        bench.refuse(Side::Egress, &frame.bytes(), Outcome::NotForEgress)?;
    }
    ensure!(bench.flow()?.reply.packets == 0);
    Ok(())
}

#[test]
fn a_frame_for_another_mac_is_judged_by_its_address_and_never_translated() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    bench.forward(
        Side::Cluster,
        &tcp((CLIENT, 2000), (ROUTER, 8080), "S").bytes(),
    )?;
    for mac in [[0xff; 6], [0x02, 0, 0, 0, 0, 9], [0x01, 0, 0x5e, 0, 0, 1]] {
        let answer = Frame {
            destination_mac: mac,
            ..tcp((WEB, 80), (RESERVED, 2000), "SA")
        };
        bench.refuse(Side::Egress, &answer.bytes(), Outcome::EgressOwn)?;
        let intruder = Frame {
            destination_mac: mac,
            ..udp((WEB, 80), (ROUTER, 53), b"")
        };
        bench.refuse(Side::Egress, &intruder.bytes(), Outcome::NotForEgress)?;
    }
    Ok(())
}

#[test]
fn a_fragment_or_another_protocol_for_a_foreign_address_is_dropped_too() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for (destination, outcome) in [
        (RESERVED, Outcome::EgressOwn),
        (ROUTER, Outcome::NotForEgress),
    ] {
        let frame = udp((DATAGRAMS, 80), (destination, 2000), b"payload").bytes();
        let mut fragment = frame.clone();
        fragment[20] = 0x20;
        bench.refuse(Side::Egress, &fragment, outcome)?;
        for protocol in [1, 2, 47, 50, 132] {
            let mut other = frame.clone();
            other[23] = protocol;
            bench.refuse(Side::Egress, &other, outcome)?;
        }
    }
    Ok(())
}
