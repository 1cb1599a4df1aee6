//! Next hops that are known in advance.

use anyhow::{Result, ensure};
use egress_common::{
    NextHop, NextHopRef,
    Side::{self, Cluster, Egress},
};
use egress_tests::skip_unless_lab_works;
use egress_userspace::net::kernel;

use crate::{
    bench::{Bench, Family, Setup, for_each_family},
    frames::{endpoints, udp},
};

const SERVERS_HOP: [u8; 12] = [2, 0, 0, 0, 0, 0xaa, 2, 0, 0, 0, 0, 0xab];
const CLIENTS_HOP: [u8; 12] = [2, 0, 0, 0, 0, 0xba, 2, 0, 0, 0, 0, 0xbb];

/// A time long after the test.
fn later() -> u64 {
    kernel::monotonic_ns() + 3_600_000_000_000
}

/// Sets a next hop for packets that leave through the interface of `side`.
fn know(
    bench: &mut Bench,
    family: &Family,
    side: Side,
    reference: NextHopRef,
    valid_until_ns: u64,
) -> Result<()> {
    let (destination, macs) = match side {
        Cluster => (family.client, CLIENTS_HOP),
        Egress => (family.datagrams, SERVERS_HOP),
    };
    let hop = NextHop {
        macs,
        reference,
        valid_until_ns,
    };
    let maps = &mut bench.dataplane.maps;
    maps.set_next_hop(reference.index(), &hop)?;
    Ok(maps.set_route(side, destination, reference)?)
}

/// Sends a question and its answer. Returns the MAC addresses of each as it leaves.
fn exchange(bench: &mut Bench, family: &Family) -> Result<[Vec<u8>; 2]> {
    let question = udp((family.client, 2000), (family.router, 80), b"question");
    let out = bench.forward(Cluster, &question.bytes())?;
    let (reserved, server) = endpoints(&out)?;
    let answer = udp(server, reserved, b"answer");
    let back = bench.forward(Egress, &answer.bytes())?;
    Ok([out, back].map(|frame| frame[..12].to_vec()))
}

#[test]
fn a_packet_is_addressed_to_the_next_hop_that_is_known() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        know(bench, family, Egress, NextHopRef::new(1, 0), later())?;
        know(bench, family, Cluster, NextHopRef::new(2, 0), later())?;
        let [out, back] = exchange(bench, family)?;
        ensure!(out == SERVERS_HOP, "{out:02x?}");
        ensure!(back == CLIENTS_HOP, "{back:02x?}");
        Ok(())
    })
}

#[test]
fn an_expired_next_hop_is_left_to_the_kernel() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        let reference = NextHopRef::new(1, 0);
        know(bench, family, Egress, reference, later())?;
        let [out, _] = exchange(bench, family)?;
        ensure!(out == SERVERS_HOP);
        know(bench, family, Egress, reference, 1)?;
        let [out, _] = exchange(bench, family)?;
        ensure!(out != SERVERS_HOP, "an expired next hop was used");
        know(bench, family, Egress, reference, later())?;
        let [out, _] = exchange(bench, family)?;
        ensure!(out == SERVERS_HOP, "a renewed next hop was not used");
        // Another next hop now has this slot.
        know(bench, family, Egress, NextHopRef::new(1, 1), later())?;
        let [out, _] = exchange(bench, family)?;
        ensure!(
            out != SERVERS_HOP,
            "a next hop of another generation was used"
        );
        Ok(())
    })
}

#[test]
fn an_unresolved_next_hop_is_reported() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        exchange(bench, family)?;
        let mut wanted = bench.dataplane.maps.take_unresolved(10)?;
        wanted.sort_by_key(|(side, _)| *side as u8);
        let expected = [(Cluster, family.client), (Egress, family.datagrams)];
        ensure!(wanted == expected, "{wanted:?}");
        ensure!(
            bench.dataplane.maps.take_unresolved(10)?.is_empty(),
            "an unresolved next hop was reported twice"
        );
        Ok(())
    })
}
