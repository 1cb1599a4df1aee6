//! A dataplane outlives its process, and the next process takes it over.

use anyhow::{Context as _, Result, ensure};
use egress_common::InstanceInfo;
use egress_tests::addresses::{V4, V6};
use egress_tests::{Lab, skip_unless_lab_works, tcp};
use nix::sys::signal::Signal;

use crate::live::Live;
use crate::pod::Pod;

/// The flows that each rule has opened.
fn flows_by_rule(pod: &Pod<'_>) -> Result<Vec<u64>> {
    let rules = pod.ask("rules")?;
    let rules = rules.as_array().context("rules is not an array")?;
    let flows = rules.iter().map(|rule| rule["flows"].as_u64());
    flows
        .collect::<Option<_>>()
        .context("flows is not a number")
}

#[test]
fn a_killed_routers_dataplane_goes_on_and_is_taken_over() -> Result<()> {
    skip_unless_lab_works!();
    for attach in ["auto", "clsact"] {
        let options = ["--attach", attach];
        let lab = Lab::new()?;
        let mut pod = Pod::start_in(&lab, &options)?;
        let live = Live::open(&lab, &V4, 10)?;
        let nothing = || Ok(());
        live.during(nothing)?;
        pod.end(Signal::SIGKILL)?;
        live.during(nothing)?;
        Live::open(&lab, &V6, 3)?.during(nothing)?;
        let before = pod.ask("status")?;
        assert_eq!(before["process_running"], false);
        let opened = flows_by_rule(&pod)?;
        ensure!((opened[1], opened[5]) == (10, 3), "{opened:?}");

        pod.start(&options)?;
        pod.wait_for_log("took over the dataplane")?;
        let after = pod.ask("status")?;
        assert_eq!(after["process_running"], true);
        assert_eq!(after["pid"], pod.process()?.id());
        assert_eq!(after["flows"], before["flows"]);
        assert_eq!(flows_by_rule(&pod)?, opened, "the counters");
        live.during(nothing)?;

        pod.end(Signal::SIGTERM)?;
        ensure!(!pod.pin_path().exists(), "the pin directory is left");
    }
    Ok(())
}

#[test]
fn a_router_that_ends_with_keep_leaves_its_dataplane() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let mut pod = Pod::start_in(&lab, &["--keep"])?;
    let live = Live::open(&lab, &V4, 10)?;
    pod.end(Signal::SIGTERM)?;
    live.during(|| Ok(()))?;
    pod.start(&[])?;
    live.during(|| Ok(()))?;
    pod.end(Signal::SIGTERM)?;
    ensure!(!pod.pin_path().exists(), "the pin directory is left");
    Ok(())
}

#[test]
fn maps_of_another_version_are_replaced_and_said_to_be() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let mut pod = Pod::start_in(&lab, &[])?;
    Live::open(&lab, &V4, 1)?.during(|| Ok(()))?;
    pod.end(Signal::SIGKILL)?;
    pod.change_instance(|instance: &mut InstanceInfo| instance.identity.layout_version += 1)?;
    pod.start(&[])?;
    pod.wait_for_log("layout version")?;
    assert_eq!(pod.ask("status")?["flows"], 0);
    Live::open(&lab, &V4, 3)?.during(|| Ok(()))?;
    pod.end(Signal::SIGTERM)?;
    ensure!(!pod.pin_path().exists(), "the pin directory is left");
    Ok(())
}

#[test]
fn another_size_of_the_flow_table_keeps_the_rules_counters() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let mut pod = Pod::start_in(&lab, &["--max-flows", "1000"])?;
    Live::open(&lab, &V4, 3)?.during(|| Ok(()))?;
    pod.end(Signal::SIGKILL)?;
    let opened = flows_by_rule(&pod)?;
    pod.start(&["--max-flows", "2000"])?;
    pod.wait_for_log("another size")?;
    assert_eq!(flows_by_rule(&pod)?, opened);
    Live::open(&lab, &V4, 3)?.during(|| Ok(()))?;
    Ok(())
}

#[test]
fn a_killed_routers_dataplane_that_is_pinned_beside_is_replaced() -> Result<()> {
    skip_unless_lab_works!();
    for attach in ["tcx", "clsact"] {
        let lab = Lab::new()?;
        let mut pod = Pod::start_in(&lab, &["--attach", attach])?;
        Live::open(&lab, &V4, 3)?.during(|| Ok(()))?;
        pod.end(Signal::SIGKILL)?;
        let before = pod.pin_path();
        pod.pin_elsewhere("renamed");
        pod.start(&[])?;
        pod.wait_for_log("replaced the dataplane")?;
        ensure!(!before.exists(), "{} is left", before.display());
        ensure!(pod.ask("status")?["flows"] == 0);
        // The new dataplane counts its own flows.
        Live::open(&lab, &V4, 3)?.during(|| Ok(()))?;
        let flows = &pod.ask("status")?["flows"];
        ensure!(flows.as_u64() >= Some(3), "{attach}: {flows}");
    }
    Ok(())
}

#[test]
fn a_dataplane_that_is_pinned_elsewhere_is_not_attached_behind() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let mut pod = Pod::start_in(&lab, &["--attach", "tcx"])?;
    pod.end(Signal::SIGKILL)?;
    let before = pod.pin_path();
    pod.pin_elsewhere("away/router");
    let refused = format!(
        "{:#}",
        pod.start(&[]).err().context("the router has started")?
    );
    ensure!(
        refused.contains("status: 7")
            && refused.contains("pinned in a directory that this router does not know"),
        "{refused}"
    );
    // Does what the message says.
    std::fs::remove_dir_all(&before)?;
    pod.start(&[])?;
    Live::open(&lab, &V4, 3)?.during(|| Ok(()))?;
    Ok(())
}

#[test]
fn a_dataplane_is_taken_over_by_the_other_way_to_attach() -> Result<()> {
    skip_unless_lab_works!();
    for [before, after] in [["tcx", "clsact"], ["clsact", "tcx"]] {
        let lab = Lab::new()?;
        let mut pod = Pod::start_in(&lab, &["--attach", before])?;
        let live = Live::open(&lab, &V4, 3)?;
        pod.end(Signal::SIGKILL)?;
        pod.start(&["--attach", after])?;
        pod.wait_for_log("took over the dataplane")?;
        assert_eq!(pod.ask("status")?["attached"], after);
        live.during(|| Ok(()))?;
        pod.end(Signal::SIGTERM)?;
        ensure!(!pod.pin_path().exists(), "the pin directory is left");
        // Neither attach mode has left a program behind.
        let _listener = tcp::listen(lab.servers(), V4.http().server())?;
        let refused = tcp::connect(lab.client(), V4.http().service());
        ensure!(refused.is_err(), "from {before} to {after}");
    }
    Ok(())
}
