//! `trace` shows what is decided for packets as they pass.

use anyhow::{Context as _, Result, ensure};
use egress_tests::addresses::{HTTP, client as client_address};
use egress_tests::{Connection, Lab, eventually, skip_unless_lab_works, tcp};
use serde_json::Value;

use crate::background::Background;
use crate::lab::{Running, exchange_datagrams};
use crate::shell;

/// Sends packets until the first one is shown: from then on the kernel half knows of the subscriber.
fn wait_until_subscribed(lab: &Lab, trace: &Background) -> Result<()> {
    eventually("a packet is shown", || {
        exchange_datagrams(lab)?;
        Ok((!trace.lines()?.is_empty()).then_some(()))
    })
}

#[test]
fn a_redirected_connection_is_traced_both_ways_step_by_step() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    let client = client_address(0).address.to_string();
    let mut trace = Background::start(&lab, &["trace", "--client", &client])?;
    wait_until_subscribed(&lab, &trace)?;
    let connection = Connection::open(&lab, HTTP)?;
    connection.exchange()?;
    let from = connection.client.local_addr()?.to_string();
    let to = HTTP.service().to_string();
    let find = |what: &str, words: &[&str]| {
        eventually(what, || {
            let lines = trace.lines()?;
            let is_it = |line: &&String| words.iter().all(|word| line.contains(word));
            let found = lines.iter().position(|line| is_it(&line));
            Ok(found.and_then(|index| lines.get(index..index + 4).map(<[String]>::to_vec)))
        })
    };
    let opening = find("the SYN", &[&format!(" eth0 TCP {from} → {to} [SYN]")])?;
    ensure!(
        opening[1].starts_with("  flow: opened by this packet; rule 1, SYN_SENT of "),
        "{opening:#?}"
    );
    let server = HTTP.server().to_string();
    ensure!(
        opening[2].starts_with("  becomes: ") && opening[2].ends_with(&server),
        "{opening:#?}"
    );
    ensure!(
        opening[3].starts_with("  forward: out of net1, "),
        "{opening:#?}"
    );
    let answer = find("the SYN-ACK", &[" net1 TCP ", "[SYN ACK]"])?;
    ensure!(
        answer[1].starts_with("  flow: found, 0 packets before this one; rule 1"),
        "{answer:#?}"
    );
    ensure!(
        answer[2] == format!("  becomes: {to} → {from}"),
        "{answer:#?}"
    );
    ensure!(
        answer[3].starts_with("  forward: out of eth0, "),
        "{answer:#?}"
    );
    ensure!(trace.interrupt()? == Some(0));

    // No more packets are shown, and the next subscriber is accepted.
    let shown = trace.lines()?.len();
    connection.exchange()?;
    ensure!(trace.lines()?.len() == shown);
    Ok(())
}

#[test]
fn a_trace_ends_after_a_number_of_packets_or_a_time_and_has_no_second() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    let mut trace = Background::start(
        &lab,
        &[
            "trace",
            "--count",
            "20",
            "--protocol",
            "udp",
            "--output",
            "json",
        ],
    )?;
    eventually("a packet is shown, so there is a subscriber", || {
        exchange_datagrams(&lab)?;
        Ok((!trace.lines()?.is_empty()).then_some(()))
    })?;
    let refused = shell::egress_router(lab.router(), &["trace", "--duration", "50ms"])?;
    ensure!(
        refused
            .stderr
            .contains("another process traces this router's packets already"),
        "{refused:?}"
    );
    let status = eventually("it has shown twenty packets", || {
        exchange_datagrams(&lab)?;
        trace.try_wait()
    })?;
    ensure!(status.success(), "{status}");
    let lines = trace.lines()?;
    ensure!(lines.len() == 20, "{lines:#?}");
    for line in lines {
        let packet: Value = serde_json::from_str(&line).context(line)?;
        ensure!(packet["verdict"].is_string(), "{packet:#}");
        ensure!(packet["packet"]["protocol"].is_string(), "{packet:#}");
    }
    let ended = shell::egress_router(lab.router(), &["trace", "--duration", "50ms"])?;
    ensure!(ended.code == Some(0), "{ended:?}");
    Ok(())
}

#[test]
fn a_packet_that_no_rule_wants_is_traced_with_the_reason() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    let trace = Background::start(
        &lab,
        &[
            "trace",
            "--protocol",
            "tcp",
            "--port",
            "9090",
            "--output",
            "json",
        ],
    )?;
    let line = eventually("the packet is shown", || {
        let port = egress_tests::addresses::UNDEFINED_PORT;
        let service = (HTTP.service().ip(), port).into();
        ensure!(tcp::connect(lab.client(), service).is_err());
        Ok(trace.lines()?.into_iter().next())
    })?;
    let packet: Value = serde_json::from_str(&line)?;
    ensure!(
        packet["verdict"] == "pass" && packet["outcome"] == "no_rule",
        "{packet:#}"
    );
    ensure!(
        packet["flow_found"] == "none" && packet["flow"].is_null(),
        "{packet:#}"
    );
    Ok(())
}
