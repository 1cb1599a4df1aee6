//! Packets that exceed the MTU of the way out, and the MSS that keeps TCP's segments small enough.

use anyhow::{Result, ensure};
use egress_common::{
    Outcome,
    Side::{Cluster, Egress},
};
use egress_tests::skip_unless_lab_works;

use crate::{
    bench::{Bench, FAMILIES, FORWARD, SkBuff},
    frames::{endpoints, udp},
};

#[test]
fn a_packet_larger_than_the_way_out_is_refused_with_its_mtu() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let mut config = bench.dataplane.maps.config()?;
    (config.cluster_mtu, config.egress_mtu) = (1400, 1500);
    bench.dataplane.maps.set_config(&config)?;
    for family in &FAMILIES {
        let headers = if family.client.is_ipv4() { 28 } else { 48 };
        let question = udp(
            (family.client, 2000),
            (family.router, 80),
            &vec![1; 1500 - headers],
        );
        let (reserved, server) = endpoints(&bench.forward(Cluster, &question.bytes())?)?;
        let fits = udp(server, reserved, &vec![2; 1400 - headers]);
        bench.forward(Egress, &fits.bytes())?;
        let large = udp(server, reserved, &vec![3; 1401 - headers]).bytes();
        bench.refuse(Egress, &large, Outcome::PacketTooBig)?;
        let error = bench.run(Egress, &large)?.frame;
        // The MTU is in the lower half of the second word (RFC 1191), or in all of it (RFC 4443).
        let message = if family.client.is_ipv4() { 34 } else { 54 };
        let kind = if family.client.is_ipv4() {
            [3, 4]
        } else {
            [2, 0]
        };
        ensure!(error[message..message + 2] == kind);
        ensure!(error[message + 4..message + 8] == 1400_u32.to_be_bytes());
    }
    Ok(())
}

#[test]
fn offloaded_sctp_whose_parts_cannot_be_seen_is_no_reason_to_refuse() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let mut config = bench.dataplane.maps.config()?;
    (config.cluster_mtu, config.egress_mtu) = (1500, 1500);
    bench.dataplane.maps.set_config(&config)?;
    let family = &FAMILIES[0];
    let packet = udp((family.client, 2000), (family.router, 80), &[1; 3000]);
    // GSO_BY_FRAGS of linux/skbuff.h: segments of any size.
    let ran = bench.run_with(
        Cluster,
        &packet.bytes(),
        Some(&SkBuff::of_segments(3, 0xffff)),
    )?;
    ensure!(ran.verdict == FORWARD, "{}", ran.verdict);
    Ok(())
}
