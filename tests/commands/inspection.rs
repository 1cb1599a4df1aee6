//! `rules`, `flows` and `status` agree with each other and with what was sent; and behaviour that all commands share.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use egress_tests::addresses::{
    DATAGRAM, HTTP, Protocol, ROUTER_ETH0, ROUTER_NET1, RULES, TLS, TLS_SERVER, UNDEFINED_PORT,
    client,
};
use egress_tests::http::{self, HttpServer};
use egress_tests::{Connection, Lab, Rule, eventually, router, skip_unless_lab_works, tcp, udp};
use serde_json::Value;

use crate::lab::{Running, UDP_HEADERS, outcome, status};
use crate::shell::{self, array, keys, number, string};

const NOT_RUNNING: i32 = 8;

fn rules(lab: &Lab) -> Result<Vec<Value>> {
    Ok(array(&shell::json(lab.router(), &["rules"])?)?.to_vec())
}

fn flows(lab: &Lab) -> Result<Vec<Value>> {
    Ok(array(&shell::json(lab.router(), &["flows"])?)?.to_vec())
}

fn endpoint(value: &Value, name: &str) -> Result<SocketAddr> {
    let address = string(value, &format!("/{name}/address"))?.parse()?;
    let port = number(value, &format!("/{name}/port"))?.try_into()?;
    Ok(SocketAddr::new(address, port))
}

/// The only flow of the rule with this number.
fn flow_of(flows: &[Value], rule: u64) -> Result<&Value> {
    let of_rule: Vec<_> = flows.iter().filter(|flow| flow["rule"] == rule).collect();
    match of_rule[..] {
        [flow] => Ok(flow),
        _ => anyhow::bail!("expected one flow of rule {rule}, found {flows:#?}"),
    }
}

/// The words of the only line that starts with all of `start`.
fn line<'t>(text: &'t str, start: &[&str]) -> Result<Vec<&'t str>> {
    let words = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let found: Vec<_> = words.filter(|words| words.starts_with(start)).collect();
    match found.as_slice() {
        [line] => Ok(line.clone()),
        _ => anyhow::bail!("expected one line that starts with {start:?} in\n{text}"),
    }
}

#[test]
fn the_numbers_of_a_datagram_flow_are_what_was_sent() -> Result<()> {
    const QUESTION: [u8; 100] = [b'q'; 100];
    const ANSWER: [u8; 200] = [b'a'; 200];
    const ROUNDS: u64 = 3;
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;

    let at_server = udp::bind(lab.servers(), DATAGRAM.server())?;
    let at_client = udp::connect(lab.client(), DATAGRAM.service())?;
    at_client.send(&QUESTION)?;
    let (_, reserved) = udp::receive(&at_server)?;
    assert_eq!(string(flow_of(&flows(&lab)?, 0)?, "/state")?, "UNREPLIED");
    at_server.send_to(&ANSWER, reserved)?;
    udp::receive(&at_client)?;
    for _ in 1..ROUNDS {
        udp::exchange(&at_client, &at_server, &QUESTION, &ANSWER)?;
    }

    let flows = flows(&lab)?;
    let flow = flow_of(&flows, 0)?;
    let port = at_client.local_addr()?.port();
    assert_eq!(
        endpoint(flow, "client")?,
        SocketAddr::new(client(0).address, port)
    );
    assert_eq!(endpoint(flow, "router")?, DATAGRAM.service());
    assert_eq!(endpoint(flow, "reserved")?, reserved);
    assert_eq!(endpoint(flow, "server")?, DATAGRAM.server());
    assert_eq!(reserved.ip(), ROUTER_NET1.address);
    assert_eq!(string(flow, "/protocol")?, "UDP");
    assert_eq!(string(flow, "/state")?, "REPLIED");

    let rules = rules(&lab)?;
    let rule = &rules[0];
    let (questions, answers) = (
        ROUNDS * (UDP_HEADERS + QUESTION.len() as u64),
        ROUNDS * (UDP_HEADERS + ANSWER.len() as u64),
    );
    for counted in [flow, rule] {
        assert_eq!(number(counted, "/original/packets")?, ROUNDS);
        assert_eq!(number(counted, "/original/bytes")?, questions);
        assert_eq!(number(counted, "/reply/packets")?, ROUNDS);
        assert_eq!(number(counted, "/reply/bytes")?, answers);
    }
    assert_eq!(number(rule, "/flows")?, 1);
    let status = status(&lab)?;
    assert_eq!(number(&status, "/flows")?, 1);
    assert_eq!(number(&status, "/rules")?, RULES.len() as u64);

    // The text output agrees.
    let text = shell::egress_router(lab.router(), &["flows"])?.success()?;
    let (client, router) = (at_client.local_addr()?, DATAGRAM.service());
    let way = format!(
        "UDP {client} → {router} ⇒ {reserved} → {}",
        DATAGRAM.server()
    );
    let words = line(&text, &way.split(' ').collect::<Vec<_>>())?;
    let counted = ["3", "384", "B", "3", "684", "B"];
    ensure!(
        words.contains(&"REPLIED") && words.ends_with(&counted),
        "{text}"
    );
    let text = shell::egress_router(lab.router(), &["rules"])?.success()?;
    let words = line(&text, &["0", "80/UDP", "10.0.0.99:80", "1"])?;
    ensure!(words.ends_with(&counted), "{text}");
    Ok(())
}

#[test]
fn rules_flows_and_status_agree_about_http() -> Result<()> {
    const BYTES: u64 = 1_000_000;
    const REQUESTS: u64 = 3;
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    let _server = HttpServer::start(lab.servers(), HTTP.server())?;
    for _ in 0..REQUESTS {
        let body = http::get(lab.client(), HTTP.service(), &format!("bytes/{BYTES}"))?;
        ensure!(body.len() as u64 == BYTES, "{} bytes", body.len());
    }

    // The server closes its end after the client has received the answer.
    let flows = eventually("every connection closed", || {
        let flows = flows(&lab)?;
        let closed = |flow: &Value| flow["state"] == "TIME_WAIT";
        Ok((flows.len() as u64 == REQUESTS && flows.iter().all(closed)).then_some(flows))
    })?;
    let rules = rules(&lab)?;
    let rule = &rules[1];
    assert_eq!(number(rule, "/flows")?, REQUESTS);
    for pointer in [
        "/original/packets",
        "/original/bytes",
        "/reply/packets",
        "/reply/bytes",
    ] {
        let of_flows = flows
            .iter()
            .map(|flow| number(flow, pointer))
            .sum::<Result<u64>>()?;
        assert_eq!(of_flows, number(rule, pointer)?, "{pointer}");
    }
    let replied = number(rule, "/reply/bytes")?;
    ensure!(
        (REQUESTS * BYTES..REQUESTS * BYTES * 11 / 10).contains(&replied),
        "{replied} bytes for {REQUESTS} answers of {BYTES}"
    );
    // A packet on the wire never exceeds the MTU, even where the kernel handled several as one.
    ensure!(
        number(rule, "/reply/packets")? >= REQUESTS * BYTES / 1_500,
        "{rule:#}"
    );
    for flow in &flows {
        assert_eq!(endpoint(flow, "router")?, HTTP.service());
        assert_eq!(endpoint(flow, "server")?, HTTP.server());
        assert_eq!(number(flow, "/rule")?, 1);
    }
    assert_eq!(number(&status(&lab)?, "/flows")?, REQUESTS);
    for unused in [&rules[0], &rules[2]] {
        assert_eq!(number(unused, "/flows")?, 0);
        assert_eq!(number(unused, "/original/packets")?, 0);
    }
    let text = shell::egress_router(lab.router(), &["rules"])?.success()?;
    let words = line(&text, &["1", "8080/TCP", "203.0.113.26:80", "3"])?;
    ensure!(words.ends_with(&["MiB"]), "{text}");
    Ok(())
}

#[test]
fn a_flow_tells_the_state_of_its_connection() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    let wait_for = |state: &str| {
        eventually(&format!("the state {state}"), || {
            let flows = flows(&lab)?;
            Ok((string(flow_of(&flows, 2)?, "/state")? == state).then_some(()))
        })
    };

    let Connection { client, server, .. } = Connection::open(&lab, TLS)?;
    tcp::send(&client, &server, b"question")?;
    wait_for("ESTABLISHED")?;
    client.shutdown(std::net::Shutdown::Write)?;
    tcp::expect_end(&server)?;
    wait_for("FIN_WAIT")?;
    tcp::reset(server)?;
    tcp::expect_reset(&client)?;
    wait_for("CLOSE")
}

#[test]
fn status_says_on_one_screen_what_runs_and_what_was_not_forwarded() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let router = Running::start(&lab, &["--max-flows", "1000"])?;
    let connection = Connection::open(&lab, TLS)?;
    connection.exchange()?;
    let undefined = SocketAddr::new(ROUTER_ETH0.address, UNDEFINED_PORT);
    ensure!(
        tcp::connect(lab.client(), undefined).is_err(),
        "nobody listens there"
    );

    let status = status(&lab)?;
    let documented = BTreeSet::from([
        "pid",
        "process_running",
        "uptime_seconds",
        "attached",
        "expiry",
        "cluster_interface",
        "egress_interface",
        "reserved_addresses",
        "fallback",
        "rules",
        "flows",
        "max_flows",
        "flows_evicted",
        "reloads",
        "outcomes",
    ]);
    assert_eq!(keys(&status), documented);
    assert_eq!(number(&status, "/pid")?, u64::from(router.id()?));
    assert_eq!(status["process_running"], true);
    assert_eq!(string(&status, "/cluster_interface")?, "eth0");
    assert_eq!(string(&status, "/egress_interface")?, "net1");
    assert_eq!(string(&status, "/reserved_addresses/0")?, "192.168.12.99");
    assert_eq!(status["fallback"], Value::Null);
    assert_eq!(number(&status, "/max_flows")?, 1_000);
    assert_eq!(number(&status, "/flows")?, 1);
    assert_eq!(outcome(&status, "no_rule")?, 1);
    assert_eq!(
        keys(&status["reloads"]),
        BTreeSet::from(["applied", "refused", "rules_age_seconds", "error"])
    );
    for outcome in array(&status["outcomes"])? {
        let documented = BTreeSet::from(["name", "verdict", "packets", "description"]);
        assert_eq!(keys(outcome), documented);
        let verdict = string(outcome, "/verdict")?;
        ensure!(["pass", "drop", "reject"].contains(&verdict), "{outcome:#}");
        // Outcomes whose sender gets an ICMP error.
        let is_told =
            ["ttl_exceeded", "packet_too_big", "sctp_refused"].contains(&string(outcome, "/name")?);
        assert_eq!(verdict == "reject", is_told, "{outcome:#}");
    }

    let text = shell::egress_router(lab.router(), &["status"])?.success()?;
    assert_eq!(line(&text, &["process"])?[1], format!("{},", router.id()?));
    let attached = string(&status, "/attached")?;
    line(
        &text,
        &[
            "attached",
            attached,
            "on",
            "eth0",
            "(cluster)",
            "and",
            "net1",
            "(egress)",
        ],
    )?;
    let expiry = string(&status, "/expiry")?;
    ensure!(["kernel", "userspace"].contains(&expiry), "{status:#}");
    line(&text, &["expiry", "by", "the", expiry])?;
    line(&text, &["reserved", "192.168.12.99"])?;
    line(&text, &["rules", "3,", "in", "force"])?;
    line(&text, &["flows", "1", "of", "1000"])?;
    line(&text, &["1", "no_rule"])?;
    ensure!(text.lines().count() <= 24, "more than a screen:\n{text}");
    Ok(())
}

#[test]
fn the_fallback_is_the_rule_after_the_last_and_has_every_other_port() -> Result<()> {
    const UNDEFINED: Rule = Rule {
        protocol: Protocol::Tcp,
        port: UNDEFINED_PORT,
        destination: TLS_SERVER,
        target_port: UNDEFINED_PORT,
    };
    let id = RULES.len() as u64;
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let directory = tempfile::tempdir()?;
    let spec = directory.path().join("router.yaml");
    let fallback = format!("redirect:\n    fallbackIP: {}", TLS_SERVER.address);
    let example = fs::read_to_string(router::example_spec())?;
    fs::write(&spec, example.replace("redirect:", &fallback))?;
    let router = Running::start_by(&lab, &spec, &[])?;
    router.wait_for_log(&["fallback: every other port → 203.0.113.27"])?;
    Connection::open(&lab, UNDEFINED)?.exchange()?;
    Connection::open(&lab, TLS)?.exchange()?;

    let rules = rules(&lab)?;
    assert_eq!(rules.len(), RULES.len() + 1);
    let last = &rules[RULES.len()];
    assert_eq!(number(last, "/id")?, id);
    assert_eq!(string(last, "/protocol")?, "any");
    assert_eq!(last["port"], Value::Null);
    assert_eq!(string(last, "/destination/address")?, "203.0.113.27");
    assert_eq!(last["destination"]["port"], Value::Null);
    assert_eq!(number(last, "/flows")?, 1);
    let flows = flows(&lab)?;
    assert_eq!(
        endpoint(flow_of(&flows, id)?, "server")?,
        UNDEFINED.server()
    );
    let status = status(&lab)?;
    assert_eq!(string(&status, "/fallback")?, "203.0.113.27");
    assert_eq!(number(&status, "/rules")?, RULES.len() as u64);

    // The text output agrees.
    let text = shell::egress_router(lab.router(), &["rules"])?.success()?;
    line(&text, &["3", "any", "other", "203.0.113.27", "1"])?;
    let text = shell::egress_router(lab.router(), &["status"])?.success()?;
    line(&text, &["rules", "3,", "else", "to", "203.0.113.27,"])?;
    Ok(())
}

#[test]
fn the_json_has_the_documented_fields() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    let _connection = Connection::open(&lab, TLS)?;

    let rules = rules(&lab)?;
    let rule_keys = BTreeSet::from([
        "id",
        "protocol",
        "port",
        "destination",
        "flows",
        "original",
        "reply",
    ]);
    for (expected, rule) in RULES.iter().zip(&rules) {
        assert_eq!(keys(rule), rule_keys);
        assert_eq!(number(rule, "/port")?, u64::from(expected.port));
        assert_eq!(endpoint(rule, "destination")?, expected.server());
    }
    assert_eq!(rules.len(), RULES.len());

    let flows = flows(&lab)?;
    let flow = flows.first().context("the connection has a flow")?;
    let flow_keys = BTreeSet::from([
        "protocol",
        "client",
        "router",
        "reserved",
        "server",
        "state",
        "rule",
        "age_seconds",
        "idle_seconds",
        "original",
        "reply",
    ]);
    assert_eq!(keys(flow), flow_keys);
    assert_eq!(keys(&flow["client"]), BTreeSet::from(["address", "port"]));
    assert_eq!(keys(&flow["reply"]), BTreeSet::from(["packets", "bytes"]));
    Ok(())
}

#[test]
fn without_a_router_they_say_how_to_start_one() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    for command in ["rules", "flows", "status", "top"] {
        for arguments in [&[command][..], &[command, "--output", "json"]] {
            shell::egress_router(lab.router(), arguments)?.failure(
                NOT_RUNNING,
                &["no egress router runs", "egress-router run --config"],
            )?;
        }
    }
    Ok(())
}

#[test]
fn a_router_is_chosen_by_its_cluster_interface() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    let status = |interface| {
        shell::egress_router(lab.router(), &["status", "--cluster-interface", interface])
    };
    status("eth0")?.success()?;
    status("net1")?.failure(NOT_RUNNING, &["no egress router runs"])?;
    status("nowhere0")?.failure(1, &["no interface nowhere0"])
}

#[test]
fn a_closed_pipe_is_no_error() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    let _connection = Connection::open(&lab, TLS)?;
    let example = router::example_spec();
    let example = example
        .to_str()
        .context("the path of the example is not UTF-8")?;
    for arguments in [
        &["flows"][..],
        &["flows", "--output", "json"],
        &["flows", "--output", "jsonl"],
        &["completions", "bash"],
        &["man"],
        &["rules"],
        &["rules", "--output", "json"],
        &["status"],
        &["status", "--output", "json"],
        &["top", "--interval", "100ms"],
        &["top", "--interval", "100ms", "--output", "json"],
        &["check", example],
        &["check", "--output", "json", example],
        &["schema"],
    ] {
        let mut command = lab.router().command(router::binary()?);
        let output = command
            .args(arguments)
            .stdout(shell::closed_pipe()?)
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success() && said.is_empty(),
            "{arguments:?} into a closed pipe: {} {said}",
            output.status
        );
    }
    Ok(())
}

#[test]
fn the_help_of_every_command_fits_a_terminal_and_explains() -> Result<()> {
    const COLUMNS: usize = 100;
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let program = egress_userspace::cli::command();
    let commands = program.get_subcommands().map(clap::Command::get_name);
    for command in std::iter::once("").chain(commands) {
        let mut help = lab.router().command(router::binary()?);
        help.args((!command.is_empty()).then_some(command))
            .arg("--help")
            .env("COLUMNS", COLUMNS.to_string());
        let text = shell::finish(&mut help)?.success()?;
        for line in text.lines() {
            let width = line.chars().count();
            ensure!(
                width <= COLUMNS,
                "{command} --help: {width} columns: {line}"
            );
        }
        let (explanation, _) = text.split_once("Usage:").context("no usage")?;
        ensure!(
            text.contains("Example") || explanation.trim().len() > 100,
            "{command} --help has neither example nor explanation:\n{text}"
        );
    }
    Ok(())
}
