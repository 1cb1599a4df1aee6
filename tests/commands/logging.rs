//! What the kernel half logs, and when it is silent.

use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use egress_tests::{Lab, eventually, skip_unless_lab_works};

use crate::lab::{Running, exchange_datagrams, outcome, send_to_net1, status};

const NOT_OURS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 12, 98));

/// Opens a flow and sends a packet that is dropped.
fn traffic(lab: &Lab) -> Result<()> {
    exchange_datagrams(lab)?;
    send_to_net1(lab, NOT_OURS)?;
    eventually("the packet was dropped", || {
        Ok((outcome(&status(lab)?, "not_for_egress")? > 0).then_some(()))
    })
}

#[test]
fn at_debug_the_kernel_half_logs_flows_and_drops() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let router = Running::start(&lab, &["--log-level", "debug"])?;
    traffic(&lab)?;
    router.wait_for_log(&["DEBUG", "flow opened: protocol 17", "server port 80"])?;
    router.wait_for_log(&["DEBUG", "net1: drop: not_for_egress"])
}

#[test]
fn at_info_it_logs_the_rules_only() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let router = Running::start(&lab, &[])?;
    traffic(&lab)?;
    let log = router.log()?;
    for rule in [
        "rule 0: 80/UDP → 10.0.0.99:80 from 192.168.12.99",
        "rule 1: 8080/TCP → 203.0.113.26:80 from 192.168.12.99",
        "rule 2: 8443/TCP → 203.0.113.27:443 from 192.168.12.99",
    ] {
        ensure!(log.contains(rule), "no {rule:?} in\n{log}");
    }
    for record in ["flow opened", "drop:", "pass:", "DEBUG"] {
        ensure!(!log.contains(record), "{record:?} in\n{log}");
    }
    Ok(())
}
