//! Outcomes that no other test covers.

use anyhow::{Result, ensure};
use bytemuck::Zeroable as _;
use egress_common::{
    Config, Outcome,
    Side::{Cluster, Egress},
};
use egress_tests::{fragment, skip_unless_lab_works};

use crate::{
    bench::{Bench, DROP, Setup, for_each_family},
    frames::{chunk, sctp, tcp, udp},
};

const ARP: [u8; 2] = [0x08, 0x06];

#[test]
fn what_is_neither_ipv4_nor_ipv6_is_left_to_the_pod() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        let mut frame = udp((family.client, 2000), (family.router, 80), b"?").bytes();
        frame[12..14].copy_from_slice(&ARP);
        for side in [Cluster, Egress] {
            bench.refuse(side, &frame, Outcome::OtherEtherType)?;
        }
        Ok(())
    })
}

#[test]
fn without_a_reserved_address_or_settings_nothing_is_forwarded() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        let syn = tcp((family.client, 2000), (family.router, 8080), "S").bytes();
        let mut config = bench.dataplane.maps.config()?;
        let set = usize::from(config.rules_in_force());
        config.rule_sets[set].reserved_v4 = bytemuck::Zeroable::zeroed();
        config.rule_sets[set].reserved_v6 = bytemuck::Zeroable::zeroed();
        bench.dataplane.maps.set_config(&config)?;
        bench.refuse(Cluster, &syn, Outcome::NotConfigured)?;
        // As during the router's shutdown.
        bench.dataplane.maps.set_config(&Config {
            rule_set: config.rule_set,
            ..Config::zeroed()
        })?;
        bench.refuse(Cluster, &syn, Outcome::NotConfigured)?;
        ensure!(bench.entries() == 0);
        Ok(())
    })
}

/// SCTP's checksum covers bytes that have not arrived yet.
#[test]
fn the_first_fragment_of_sctp_whose_port_changes_is_dropped() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &crate::bench::FAMILIES {
        // The first chunk is an INIT, which opens; the router ignores the rest.
        let mut chunks = chunk(1, &[1; 16]);
        chunks.extend(chunk(0, &[2; 600]));
        let frame = sctp((family.client, 2000), (family.router, 5000), &chunks).bytes();
        let (ethernet, packet) = frame.split_at(14);
        let fragments = fragment::cut(packet, 320, 0x4242)?;
        let first = [ethernet, &fragments[0]].concat();
        let before = bench.count(Outcome::RewriteFailed)?;
        let ran = bench.run(Cluster, &first)?;
        ensure!(ran.verdict == DROP, "verdict {}", ran.verdict);
        ensure!(bench.count(Outcome::RewriteFailed)? == before + 1);
    }
    Ok(())
}
