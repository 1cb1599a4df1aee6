//! How the router ends.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};
use egress_tests::addresses::HTTP;
use egress_tests::{Connection, Lab, skip_unless_lab_works};

use crate::running::start;

#[test]
fn a_stopped_router_leaves_nothing_attached_and_no_program() -> Result<()> {
    skip_unless_lab_works!();
    skip_on_nftables!("no program is attached");
    let lab = Lab::new()?;
    let mut running = start(&lab)?;
    let router = running.0.take().context("no router was started")?;
    drop(Connection::open(&lab, HTTP)?);
    let programs = programs_of(router.id())?;
    ensure!(
        !programs.is_empty(),
        "the running router holds no BPF program"
    );
    let before = attachments(&lab)?;
    ensure!(
        before.contains("eth0") && before.contains("net1"),
        "attached before: {before:?}"
    );

    let log = router.log();
    let status = router.stop()?;
    ensure!(status.success(), "after SIGTERM: {status}\n{log}");
    assert_eq!(attachments(&lab)?, "");
    // The kernel frees programs after a grace period.
    for _ in 0..200 {
        if loaded().is_disjoint(&programs) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(25));
    }
    anyhow::bail!("still loaded 5 s after the router ended: {programs:?}")
}

/// The IDs of the BPF programs that a process holds, directly or through a link (the kernel's `bpf_prog_show_fdinfo`
/// and `bpf_link_show_fdinfo`).
fn programs_of(process: u32) -> Result<HashSet<u32>> {
    let mut programs = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo"))? {
        for line in fs::read_to_string(entry?.path())?.lines() {
            if let Some(id) = line.strip_prefix("prog_id:") {
                programs.insert(id.trim().parse().with_context(|| line.to_owned())?);
            }
        }
    }
    Ok(programs)
}

fn loaded() -> HashSet<u32> {
    // A program that is freed while the list is read counts as not loaded.
    loaded_programs()
        .filter_map(Result::ok)
        .map(|program| program.id())
        .collect()
}

/// One line for each program attached to the router's interfaces by TCX or to a clsact qdisc.
fn attachments(lab: &Lab) -> Result<String> {
    let mut found = String::new();
    for interface in ["eth0", "net1"] {
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            // A kernel before 6.6 has no TCX, so nothing is attached by it.
            let tcx = lab.router().run(|| {
                let query = SchedClassifier::query_tcx(interface, direction);
                Ok(query.map_or(0, |(_, programs)| programs.len()))
            })?;
            if tcx > 0 {
                writeln!(found, "{interface}: {tcx} programs by TCX, {direction:?}")?;
            }
        }
        let qdiscs = lab
            .router()
            .output("tc", ["qdisc", "show", "dev", interface])?;
        for qdisc in qdiscs.lines().filter(|qdisc| qdisc.contains("clsact")) {
            writeln!(found, "{interface}: {qdisc}")?;
        }
    }
    Ok(found)
}
