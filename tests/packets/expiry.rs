//! The kernel half's own timer ends idle flows.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use egress_common::Side::Cluster;
use egress_tests::sctp::chunk::INIT;
use egress_tests::{requirements, skip_unless_lab_works};
use egress_userspace::net::kernel;

use crate::{
    bench::{Bench, FAMILIES, Setup},
    frames::{chunk, sctp, udp},
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
    // The association's idle timeout is 3 seconds, the connection's 30.
    let association = sctp(
        (family.client, 2000),
        (family.router, 5000),
        &chunk(INIT, &[1; 16]),
    );
    let datagram = udp((family.client, 2001), (family.router, 80), b"");
    for opening in [association, datagram] {
        bench.forward(Cluster, &opening.bytes())?;
    }
    ensure!(bench.entries() == 4, "{:?}", bench.flows());
    let deadline = Instant::now() + Duration::from_secs(20);
    while bench.entries() > 2 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(50));
    }
    ensure!(bench.entries() == 2, "{:?}", bench.flows());
    ensure!(bench.flow()?.client.port == 2001);
    Ok(())
}
