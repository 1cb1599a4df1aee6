//! Idle flows end by the kernel half's own timer.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use egress_common::Side::Cluster;
use egress_tests::{requirements, skip_unless_lab_works};
use egress_userspace::kernel;

use crate::{
    bench::{Bench, FAMILIES, Setup},
    frames::udp,
};

#[test]
fn a_flow_that_is_idle_for_too_long_goes_with_both_entries_and_another_stays() -> Result<()> {
    skip_unless_lab_works!();
    if !kernel::features()?.kernel_expiry {
        let test = egress_tests::function_name!();
        requirements::skipped(test, "this kernel has no bpf_timer or no bpf_loop");
        return Ok(());
    }
    let mut bench = Bench::with(Setup {
        kernel_expiry: true,
        ..Setup::default()
    })?;
    let family = &FAMILIES[0];
    bench.dataplane.start_expiry()?;
    for port in [2000, 2001] {
        bench.forward(
            Cluster,
            &udp((family.client, port), (family.router, 80), b"").bytes(),
        )?;
    }
    // Longer ago than any UDP flow lives.
    let flows = &mut bench.dataplane.maps.v4.flows;
    let old: Vec<_> = flows
        .iter()
        .flatten()
        .filter(|(tuple, _)| {
            [
                tuple.ports.source.number(),
                tuple.ports.destination.number(),
            ]
            .contains(&2000)
        })
        .collect();
    ensure!(old.len() == 2);
    for (tuple, mut flow) in old {
        flow.last_seen_ns = flow.last_seen_ns.saturating_sub(1_000_000_000_000);
        flows.insert(tuple, flow, 0)?;
    }
    let deadline = Instant::now() + Duration::from_secs(10);
    while bench.entries() > 2 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    ensure!(bench.entries() == 2, "{:?}", bench.flows());
    ensure!(bench.flow()?.client.port == 2001);
    Ok(())
}
