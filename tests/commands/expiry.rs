//! The end of idle flows, as shown by `flows`.

use std::time::Duration;

use anyhow::{Result, ensure};
use egress_tests::addresses::{DATAGRAM, HTTP, TLS};
use egress_tests::wait::eventually_within;
use egress_tests::{Connection, Lab, eventually, requirements, skip_unless_lab_works, tcp, udp};
use serde_json::Value;

use crate::lab::{Running, datagram_server, status};
use crate::shell::{self, array, string};

/// Twice the idle timeout of a flow whose connection was reset.
const TWICE_CLOSE: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(250);

#[test]
fn without_its_process_the_kernel_ends_the_flow_of_a_reset_connection_and_no_other() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let router = Running::start(&lab, &[])?;
    if string(&status(&lab)?, "/expiry")? != "kernel" {
        let test = egress_tests::function_name!();
        requirements::skipped(test, "needs bpf_timer and bpf_loop (Linux 5.17)");
        return Ok(());
    }
    let living = Connection::open(&lab, HTTP)?;
    let Connection { client, server, .. } = Connection::open(&lab, TLS)?;
    tcp::send(&client, &server, b"question")?;
    tcp::reset(server)?;
    tcp::expect_reset(&client)?;

    let _suspended = router.suspend()?;
    let states = || states(&lab);
    let both = eventually("the reset is seen", || {
        let states = states()?;
        Ok(states.contains(&"CLOSE".to_owned()).then_some(states))
    })?;
    assert_eq!(both, ["CLOSE", "ESTABLISHED"]);
    let left = eventually_within(TWICE_CLOSE, "the flow is ended", || {
        std::thread::sleep(POLL);
        let states = states()?;
        Ok((states != both).then_some(states))
    })?;
    ensure!(left == ["ESTABLISHED"], "{left:?} are left");
    living.exchange()
}

#[test]
fn a_timeout_that_is_set_ends_the_flows_that_it_is_for_and_no_others() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &["--timeout", "udp=1"])?;
    let connection = Connection::open(&lab, HTTP)?;
    connection.exchange()?;
    let server = datagram_server(&lab)?;
    let client = udp::connect(lab.client(), DATAGRAM.service())?;
    // The second datagram opens a new flow.
    for _ in 0..2 {
        udp::exchange(&client, &server, b"question", b"answer")?;
        eventually("the flow of the datagrams is ended", || {
            Ok((states(&lab)? == ["ESTABLISHED"]).then_some(()))
        })?;
    }
    let rules = shell::json(lab.router(), &["rules"])?;
    ensure!(shell::number(&rules, "/0/flows")? == 2, "{rules:#}");
    connection.exchange()
}

/// The states of all flows, sorted.
fn states(lab: &Lab) -> Result<Vec<String>> {
    let flows = shell::json(lab.router(), &["flows"])?;
    let state = |flow: &Value| Ok(string(flow, "/state")?.to_owned());
    let mut states = array(&flows)?
        .iter()
        .map(state)
        .collect::<Result<Vec<_>>>()?;
    states.sort();
    Ok(states)
}
