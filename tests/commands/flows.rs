//! The options of `flows`: filters, order, limit and format.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Seek as _};
use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use bytemuck::Zeroable as _;
use egress_common::{Flow, Ipv4Address, Pair, Port, Ports, Side, Translation, Tuple, protocol};
use egress_tests::addresses::{DATAGRAM, HTTP, TLS};
use egress_tests::{Connection, Lab, router, skip_unless_lab_works};
use egress_userspace::dataplane::Instance;
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::Value;

use crate::lab::{Running, exchange_datagrams};
use crate::shell::{self, array, number};

/// The rules of the flows that `flows` prints with these options, in its order.
fn rules_of(lab: &Lab, options: &[&str]) -> Result<Vec<u64>> {
    let flows = shell::json(lab.router(), &[&["flows"], options].concat())?;
    array(&flows)?
        .iter()
        .map(|flow| number(flow, "/rule"))
        .collect()
}

#[test]
fn flows_are_selected_sorted_and_limited() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    // Opens a flow of each of the rules 0, 1 and 2.
    exchange_datagrams(&lab)?;
    let http = Connection::open(&lab, HTTP)?;
    let tls = Connection::open(&lab, TLS)?;
    for _ in 0..2 {
        http.exchange()?;
    }
    tls.exchange()?;

    let sorted = |options: &[&str]| -> Result<Vec<u64>> {
        let mut rules = rules_of(&lab, options)?;
        rules.sort_unstable();
        Ok(rules)
    };
    assert_eq!(sorted(&[])?, [0, 1, 2]);
    assert_eq!(sorted(&["--client", "10.128.0.0/16"])?, [0, 1, 2]);
    assert_eq!(sorted(&["--client", "192.0.2.0/24"])?, [0; 0]);
    let http_server = HTTP.server().to_string();
    assert_eq!(sorted(&["--destination", &http_server])?, [1]);
    let datagram_server = DATAGRAM.server().ip().to_string();
    let either = [
        "--destination",
        &http_server,
        "--destination",
        &datagram_server,
    ];
    assert_eq!(sorted(&either)?, [0, 1]);
    assert_eq!(sorted(&["--protocol", "TCP"])?, [1, 2]);
    assert_eq!(sorted(&["--state", "established", "--rule", "2"])?, [2]);
    assert_eq!(sorted(&["--state", "established", "--rule", "0"])?, [0; 0]);
    assert_eq!(rules_of(&lab, &["--sort", "packets"])?, [1, 2, 0]);
    assert_eq!(
        rules_of(&lab, &["--sort", "bytes", "--limit", "2"])?,
        [1, 2]
    );
    assert_eq!(rules_of(&lab, &["--limit", "1"])?.len(), 1);
    assert_eq!(rules_of(&lab, &["--limit", "0"])?.len(), 0);

    let lines = ["flows", "--sort", "packets", "--output", "jsonl"];
    let lines = shell::egress_router(lab.router(), &lines)?.success()?;
    let rules: Vec<_> = lines
        .lines()
        .map(|line| number(&serde_json::from_str::<Value>(line)?, "/rule"))
        .collect::<Result<_>>()?;
    assert_eq!(rules, [1, 2, 0]);
    Ok(())
}

#[test]
fn an_option_that_makes_no_sense_is_refused() -> Result<()> {
    const USAGE: i32 = 2;
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    for (options, word) in [
        (["--client", "10.0.0.0/33"], "0–32"),
        (["--destination", "10.0.0.1:http"], "not a port"),
        (["--state", "ESTABLISHD"], "ESTABLISHED"),
        (["--protocol", "gre"], "sctp"),
        (["--follow", "--limit=3"], "--follow"),
    ] {
        let arguments = [&["flows"], &options[..]].concat();
        shell::egress_router(lab.router(), &arguments)?.failure(USAGE, &[word])?;
    }
    Ok(())
}

#[test]
fn completions_and_manual_pages_know_every_command() -> Result<()> {
    const COMMANDS: [&str; 10] = [
        "run",
        "check",
        "schema",
        "rules",
        "flows",
        "status",
        "explain",
        "trace",
        "completions",
        "man",
    ];
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    for name in ["bash", "zsh", "fish"] {
        let script = shell::egress_router(lab.router(), &["completions", name])?.success()?;
        for command in COMMANDS {
            ensure!(
                script.contains(command),
                "{name} does not complete {command}"
            );
        }
    }
    let page = shell::egress_router(lab.router(), &["man"])?.success()?;
    ensure!(page.contains(".TH egress-router 1"), "{page}");

    let directory = tempfile::tempdir()?;
    let path = directory.path().display().to_string();
    shell::egress_router(lab.router(), &["man", "--directory", &path])?.success()?;
    for command in COMMANDS {
        let page = directory.path().join(format!("egress-router-{command}.1"));
        let text = std::fs::read_to_string(&page)?;
        ensure!(
            text.contains("Examples") || text.contains("Example"),
            "{command}: {text}"
        );
    }
    let nowhere = ["man", "--directory", "/nowhere"];
    shell::egress_router(lab.router(), &nowhere)?.failure(1, &["/nowhere"])
}

/// Fills the flow table of a running router with entries that no packet created.
fn fill(lab: &Lab, number: u32) -> Result<()> {
    lab.router().run(|| {
        let mut instance = Instance::only(None)?;
        let address = |address: [u8; 4]| Ipv4Address::from(Ipv4Addr::from(address));
        for index in 0..number {
            let port = Port::new(u16::try_from(index % 50_000)? + 1024);
            let client = address([10, 129, u8::try_from(index / 50_000)?, 1]);
            let tuple = Tuple::new(
                Side::Cluster,
                protocol::UDP,
                Pair {
                    source: client,
                    destination: address([10, 128, 0, 100]),
                },
                Ports {
                    source: port,
                    destination: Port::new(80),
                },
            );
            let out = Tuple::new(
                Side::Egress,
                protocol::UDP,
                Pair {
                    source: address([10, 0, 0, 99]),
                    destination: client,
                },
                Ports {
                    source: Port::new(80),
                    destination: port,
                },
            );
            let mut flow: Flow<Ipv4Address> = Flow::zeroed();
            flow.opened_ns = egress_userspace::net::kernel::monotonic_ns();
            flow.last_seen_ns = flow.opened_ns;
            let mut original = flow;
            original.translation =
                Translation::new(&tuple, out.addresses.swapped(), out.ports.swapped());
            let mut reply = flow;
            reply.translation =
                Translation::new(&out, tuple.addresses.swapped(), tuple.ports.swapped());
            instance.maps.v4.flows.insert(tuple, original, 0)?;
            instance.maps.v4.flows.insert(out, reply, 0)?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "takes a minute and a gigabyte of kernel memory"]
fn a_million_flows_are_printed_without_holding_them_all() -> Result<()> {
    const FLOWS: u32 = 1_000_000;
    const MAX_KIB: i64 = 64 * 1024;
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &["--max-flows", &FLOWS.to_string()])?;
    fill(&lab, FLOWS)?;
    for (options, lines) in [
        (&["--output", "jsonl"][..], FLOWS as usize),
        (&["--output", "text"], FLOWS as usize + 1),
        (&["--sort", "bytes", "--limit", "20"], 21),
    ] {
        let mut out: File = tempfile::tempfile()?;
        let mut command = lab.router().command(router::binary()?);
        let status = command
            .arg("flows")
            .args(options)
            .stdout(out.try_clone()?)
            .status()?;
        ensure!(status.success(), "{options:?}: {status}");
        out.rewind()?;
        assert_eq!(BufReader::new(out).lines().count(), lines, "{options:?}");
        let peak = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
        eprintln!("{options:?}: at most {peak} KiB");
        ensure!(peak < MAX_KIB, "{options:?} held {peak} KiB");
    }
    Ok(())
}
