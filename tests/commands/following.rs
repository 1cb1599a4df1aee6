//! The flow log and `flows --follow`: flows as they open and end.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use egress_tests::addresses::HTTP;
use egress_tests::{Connection, Lab, eventually, skip_unless_lab_works, tcp};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::background::{Background, lines};
use crate::lab::{Running, UDP_HEADERS, exchange_datagrams};
use crate::shell::{self, number, string};

/// Waits until a file has exactly this many lines of JSON.
fn wait_for_lines(path: &Path, count: usize) -> Result<Vec<Value>> {
    let lines = eventually(&format!("{count} lines"), || {
        let lines = lines(path)?;
        Ok((lines.len() >= count).then_some(lines))
    })?;
    ensure!(lines.len() == count, "{lines:#?}");
    lines
        .iter()
        .map(|line| serde_json::from_str(line).with_context(|| line.clone()))
        .collect()
}

#[test]
fn the_flow_log_has_the_start_and_the_end_of_a_flow_with_what_it_carried() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("flows.jsonl");
    let log = path.to_str().context("not UTF-8")?;
    let router = Running::start(&lab, &["--flow-log", log, "--timeout", "udp=1"])?;
    let mode = File::open(&path)?.metadata()?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "{mode:o}");

    exchange_datagrams(&lab)?;
    let [start, end] = &wait_for_lines(&path, 2)?[..] else {
        unreachable!("there are two")
    };
    ensure!(
        start["event"] == "start" && end["event"] == "end",
        "{start:#} {end:#}"
    );
    ensure!(start.get("reason").is_none(), "{start:#}");
    ensure!(
        end["reason"] == "idle" && end["state"] == "REPLIED",
        "{end:#}"
    );
    for name in [
        "protocol", "client", "router", "reserved", "server", "rule", "opened",
    ] {
        ensure!(start[name] == end[name], "{name}: {start:#} {end:#}");
    }
    let packets = [
        number(end, "/original/packets")?,
        number(end, "/reply/packets")?,
    ];
    ensure!(packets == [1, 1], "{end:#}");
    let bytes = [
        number(end, "/original/bytes")?,
        number(end, "/reply/bytes")?,
    ];
    let expected =
        ["question", "answer"].map(|text| UDP_HEADERS + u64::try_from(text.len()).unwrap_or(0));
    ensure!(bytes == expected, "{end:#}");
    ensure!(
        string(start, "/time")? < string(end, "/time")?,
        "{start:#} {end:#}"
    );

    // Rotates the log like logrotate(8).
    let rotated = directory.path().join("flows.jsonl.1");
    fs::rename(&path, &rotated)?;
    router.signal(Signal::SIGHUP)?;
    eventually("the file is opened again", || {
        Ok(path.exists().then_some(()))
    })?;
    exchange_datagrams(&lab)?;
    wait_for_lines(&path, 2)?;
    ensure!(lines(&rotated)?.len() == 2);
    ensure!(router.stop()?.success());
    Ok(())
}

#[test]
fn a_reset_connection_is_closed_in_the_flow_log() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let file = tempfile::NamedTempFile::new()?;
    let log = file.path().to_str().context("not UTF-8")?;
    let _router = Running::start(&lab, &["--flow-log", log, "--timeout", "tcp_close=1"])?;
    let Connection { client, server, .. } = Connection::open(&lab, HTTP)?;
    tcp::send(&client, &server, b"question")?;
    tcp::reset(server)?;
    tcp::expect_reset(&client)?;
    let end = &wait_for_lines(file.path(), 2)?[1];
    ensure!(
        end["reason"] == "closed" && end["state"] == "CLOSE",
        "{end:#}"
    );
    ensure!(
        end["server"]["port"] == HTTP.server().port(),
        "the server is the rule's: {end:#}"
    );
    Ok(())
}

#[test]
fn following_shows_flows_live_to_one_follower_and_leaves_nothing_switched_on() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &["--timeout", "udp=1"])?;
    let mut follower = Background::start(&lab, &["flows", "--follow"])?;
    let path = follower.path().to_owned();
    // The command may take a moment to subscribe.
    eventually("a flow is shown", || {
        exchange_datagrams(&lab)?;
        Ok((!lines(&path)?.is_empty()).then_some(()))
    })?;
    let end = eventually("its end is shown", || {
        let lines = lines(&path)?;
        Ok(lines.into_iter().find(|line| line.contains(" - UDP ")))
    })?;
    let packets = format!(
        ": idle, REPLIED, 0.000s, > 1 packet, {} B, < 1 packet, {} B",
        UDP_HEADERS + 8,
        UDP_HEADERS + 6
    );
    ensure!(end.ends_with(&packets), "{end}");

    let second = shell::egress_router(lab.router(), &["flows", "--follow"])?;
    second.failure(1, &["another process follows this router's flows already"])?;

    ensure!(follower.interrupt()? == Some(0));
    let shown = lines(&path)?.len();
    exchange_datagrams(&lab)?;
    ensure!(lines(&path)?.len() == shown);

    // After that the next subscriber is accepted, and sees no earlier events.
    let mut follower = Background::start(&lab, &["flows", "--follow", "--output", "json"])?;
    let path = follower.path().to_owned();
    let first = eventually("a flow is shown as JSON", || {
        exchange_datagrams(&lab)?;
        let lines = lines(&path)?;
        Ok(lines.into_iter().next())
    })?;
    let first: Value = serde_json::from_str(&first)?;
    ensure!(first["protocol"] == "UDP", "{first:#}");
    ensure!(follower.interrupt()? == Some(0));
    Ok(())
}
