//! How a router attaches, how it ends, and how the next one replaces it.

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt as _;

use anyhow::{Result, ensure};
use egress_tests::addresses::{HTTP, TLS};
use egress_tests::requirements::skipped;
use egress_tests::{Connection, Lab, eventually, router, skip_unless_lab_works};
use nix::sys::signal::Signal;

use crate::lab::{
    Running, attachments, by_clsact, by_tcx, exchange_datagrams, skip_without_tcx, status, tc,
};
use crate::shell::{self, Started, string};

#[test]
fn clsact_works_and_leaves_nothing_after_sigterm() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let router = Running::start(&lab, &["--attach", "clsact"])?;
    assert_eq!(attachments(&lab)?, by_clsact());
    assert_eq!(string(&status(&lab)?, "/attached")?, "clsact");
    exchange_datagrams(&lab)?;
    Connection::open(&lab, HTTP)?.exchange()?;

    let ended = router.stop()?;
    ensure!(ended.success(), "{ended}");
    assert_eq!(attachments(&lab)?, BTreeSet::new());
    Ok(())
}

#[test]
fn with_clsact_the_dataplane_outlives_its_process_and_is_replaced() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let router = Running::start(&lab, &["--attach", "clsact"])?;
    let id = router.id()?;
    let connection = Connection::open(&lab, TLS)?;
    connection.exchange()?;

    let ended = router.kill()?;
    ensure!(ended.signal() == Some(Signal::SIGKILL as i32), "{ended}");
    assert_eq!(attachments(&lab)?, by_clsact());
    connection.exchange()?;
    Connection::open(&lab, HTTP)?.exchange()?;
    exchange_datagrams(&lab)?;
    assert_eq!(status(&lab)?["process_running"], false);
    let text = shell::egress_router(lab.router(), &["status"])?.success()?;
    ensure!(text.contains(&format!("{id} (gone")), "{text}");

    let router = Running::start(&lab, &["--attach", "clsact"])?;
    router.wait_for_log(&["WARN", "replaced the dataplane", &format!("process {id}")])?;
    assert_eq!(attachments(&lab)?, by_clsact());
    let status = status(&lab)?;
    assert_eq!(status["pid"], router.id()?);
    assert_eq!(status["process_running"], true);
    Connection::open(&lab, HTTP)?.exchange()?;
    exchange_datagrams(&lab)
}

#[test]
fn a_router_with_the_process_id_of_the_one_before_replaces_it() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    // Like a restarted container, in which the router is process 1 each time.
    let container = || {
        let mut command = lab.router().command("unshare");
        command
            .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg(router::binary()?)
            .args(["run", "--no-pin", "--attach", "clsact", "--config"])
            .arg(router::example_spec());
        Started::new(&mut command)
    };
    container()?.kill()?;
    // Only `unshare` has been waited for: the kernel kills the router itself a moment later.
    eventually("the router has ended", || {
        Ok((status(&lab)?["process_running"] == false).then_some(()))
    })?;
    assert_eq!(attachments(&lab)?, by_clsact());
    let log = container()?.log()?;
    ensure!(
        log.contains("replaced the dataplane that process 1"),
        "{log}"
    );
    Ok(())
}

#[test]
fn a_router_by_tcx_replaces_what_a_killed_one_by_clsact_left() -> Result<()> {
    skip_unless_lab_works!();
    skip_without_tcx!();
    let lab = Lab::new()?;
    Running::start(&lab, &["--attach", "clsact"])?.kill()?;
    let router = Running::start(&lab, &["--attach", "tcx"])?;
    router.wait_for_log(&["WARN", "replaced the dataplane"])?;
    let attached = attachments(&lab)?;
    ensure!(attached.is_superset(&by_tcx()), "{attached:?}");
    ensure!(
        !attached.iter().any(|line| line.ends_with("by clsact")),
        "{attached:?}"
    );
    exchange_datagrams(&lab)
}

#[test]
fn anothers_clsact_and_filter_stay() -> Result<()> {
    const FILTER: &str = "filter add dev eth0 ingress protocol arp u32 match u32 0 0";
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    tc(&lab, &["qdisc", "add", "dev", "eth0", "clsact"])?;
    if let Err(error) = tc(&lab, &FILTER.split(' ').collect::<Vec<_>>()) {
        skipped(
            egress_tests::function_name!(),
            &format!("no u32 filter: {error:#}"),
        );
        return Ok(());
    }
    let before = attachments(&lab)?;
    ensure!(
        before.contains("eth0: another's filter by clsact"),
        "{before:?}"
    );

    let router = Running::start(&lab, &["--attach", "clsact"])?;
    exchange_datagrams(&lab)?;
    assert_eq!(attachments(&lab)?, &before | &by_clsact());
    let ended = router.stop()?;
    ensure!(ended.success(), "{ended}");
    assert_eq!(attachments(&lab)?, before);
    Ok(())
}

#[test]
fn with_tcx_nothing_stays_of_a_killed_router_and_the_next_one_starts() -> Result<()> {
    skip_unless_lab_works!();
    skip_without_tcx!();
    let lab = Lab::new()?;
    let router = Running::start(&lab, &["--attach", "tcx"])?;
    assert_eq!(attachments(&lab)?, by_tcx());
    assert_eq!(string(&status(&lab)?, "/attached")?, "tcx");
    router.kill()?;
    assert_eq!(attachments(&lab)?, BTreeSet::new());

    let router = Running::start(&lab, &["--attach", "tcx"])?;
    ensure!(
        !router.log()?.contains("replaced"),
        "there was nothing to replace"
    );
    assert_eq!(attachments(&lab)?, by_tcx());
    exchange_datagrams(&lab)?;
    Connection::open(&lab, HTTP)?.exchange()
}

#[test]
fn sigint_and_sigterm_end_it_in_the_same_way() -> Result<()> {
    skip_unless_lab_works!();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let lab = Lab::new()?;
        let router = Running::start(&lab, &[])?;
        exchange_datagrams(&lab)?;
        router.signal(signal)?;
        // This signal ends it; `stop` sends another one, too late to matter.
        router.wait_for_log(&[&format!("{signal}: detaching")])?;
        let ended = router.stop()?;
        ensure!(ended.code() == Some(0), "after {signal}: {ended}");
        assert_eq!(attachments(&lab)?, BTreeSet::new());
        shell::egress_router(lab.router(), &["status"])?.failure(8, &["no egress router runs"])?;
    }
    Ok(())
}
