//! When `run` refuses to start: its exit code, its message, and that it has changed nothing.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use egress_tests::addresses::{ROUTER_ETH0, ROUTER_NET1, TLS};
use egress_tests::router::example_spec;
use egress_tests::{Connection, Lab, skip_unless_lab_works};

use crate::lab::{Running, attachments, by_default, exchange_datagrams};
use crate::shell::{self, Finished};

const FAILURE: i32 = 1;
const USAGE: i32 = 2;
const SPEC: i32 = 3;
const INTERFACES: i32 = 4;
const ALREADY_RUNNING: i32 = 7;

fn run(lab: &Lab, options: &[&str]) -> Result<Finished> {
    let spec = example_spec();
    let spec = spec
        .to_str()
        .context("the path of the example is not UTF-8")?;
    let arguments = [&["run", "--no-pin", "--config", spec], options].concat();
    shell::egress_router(lab.router(), &arguments)
}

fn run_spec(lab: &Lab, text: &str) -> Result<Finished> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("router.yaml");
    fs::write(&file, text)?;
    let file = file.to_str().context("the path of the spec is not UTF-8")?;
    shell::egress_router(lab.router(), &["run", "--no-pin", "--config", file])
}

/// Checks that nothing is attached and that no router's program belongs to the pod.
fn expect_untouched(lab: &Lab) -> Result<()> {
    let attached = attachments(lab)?;
    ensure!(attached.is_empty(), "still attached: {attached:?}");
    shell::egress_router(lab.router(), &["status"])?.failure(8, &["no egress router runs"])
}

#[test]
fn a_missing_interface_is_named_with_those_that_exist() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    for option in ["--cluster-interface", "--egress-interface"] {
        run(&lab, &[option, "nowhere0"])?.failure(
            INTERFACES,
            &["no interface nowhere0", "lo, ", "eth0", "net1", option],
        )?;
        expect_untouched(&lab)?;
    }
    Ok(())
}

#[test]
fn one_interface_cannot_have_both_roles() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    run(&lab, &["--egress-interface", "eth0"])?.failure(
        INTERFACES,
        &["eth0 cannot be both the cluster and the egress interface"],
    )?;
    expect_untouched(&lab)
}

#[test]
fn an_interface_that_is_down_is_named() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    for interface in ["eth0", "net1"] {
        lab.router().ip([format!("link set {interface} down")])?;
        let remedy = format!("ip link set {interface} up");
        run(&lab, &[])?.failure(INTERFACES, &[&format!("{interface} is down"), &remedy])?;
        expect_untouched(&lab)?;
        lab.router().ip([format!("link set {interface} up")])?;
    }
    Ok(())
}

#[test]
fn a_reserved_address_that_net1_does_not_have_is_named() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    lab.router().ip([
        format!("address delete {ROUTER_NET1} dev net1"),
        "address add 192.168.12.98/24 dev net1".to_owned(),
    ])?;
    let remedy = format!("ip address add {ROUTER_NET1} dev net1");
    run(&lab, &[])?.failure(
        INTERFACES,
        &[
            "the reserved address 192.168.12.99",
            "is not on net1",
            "192.168.12.98",
            &remedy,
        ],
    )?;
    expect_untouched(&lab)
}

#[test]
fn an_eth0_without_ipv4_address_is_named() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    lab.router()
        .ip([format!("address delete {ROUTER_ETH0} dev eth0")])?;
    run(&lab, &[])?.failure(INTERFACES, &["eth0 has no IPv4 address"])?;
    expect_untouched(&lab)
}

#[test]
fn a_second_router_names_the_first_which_goes_on() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let first = Running::start(&lab, &[])?;
    let connection = Connection::open(&lab, TLS)?;
    connection.exchange()?;

    let process = format!("process {}", first.id()?);
    for attach in ["auto", "tcx", "clsact"] {
        run(&lab, &["--attach", attach])?.failure(
            ALREADY_RUNNING,
            &[
                "another egress router",
                &process,
                "attached to eth0",
                "egress-router status",
            ],
        )?;
    }
    assert_eq!(attachments(&lab)?, by_default());
    connection.exchange()?;
    exchange_datagrams(&lab)
}

#[test]
fn an_invalid_spec_is_refused_with_every_error() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let example = fs::read_to_string(example_spec())?;
    let broken = example
        .replace("port: 8080", "port: 70000")
        .replace("protocol: UDP", "protocol: udp");
    run_spec(&lab, &broken)?.failure(
        SPEC,
        &[
            "router.yaml: 2 errors",
            "spec.redirect.redirectRules[0].protocol: \"udp\"",
            "spec.redirect.redirectRules[1].port: 70000 is not a port (1–65535)",
        ],
    )?;
    expect_untouched(&lab)
}

#[test]
fn a_missing_spec_is_named() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    shell::egress_router(lab.router(), &["run", "--config", "/does/not/exist.yaml"])?.failure(
        FAILURE,
        &[
            "cannot read /does/not/exist.yaml",
            "No such file or directory",
        ],
    )?;
    expect_untouched(&lab)
}

#[test]
fn wrong_usage_prints_the_usage() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    shell::egress_router(lab.router(), &["run"])?
        .failure(USAGE, &["--config <FILE>", " run --config <FILE>"])?;
    run(&lab, &["--max-flows", "0"])?.failure(USAGE, &["--max-flows", "1..=16777216"])?;
    expect_untouched(&lab)
}

#[test]
fn an_unknown_or_invalid_timeout_is_refused_with_what_was_expected() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    for (setting, expected) in [
        ("udp", "expected NAME=TIME, such as tcp_established=2h"),
        (
            "tpc_close=5",
            "no timeout \"tpc_close\"; expected one of tcp_syn_sent, ",
        ),
        ("udp=soon", "\"soon\" is not a duration"),
        ("udp=0", "not between 1 second and 1 year"),
        ("udp=1500ms", "in whole seconds"),
    ] {
        let found = format!("invalid value '{setting}' for '--timeout <NAME=TIME>'");
        run(&lab, &["--timeout", setting])?.failure(USAGE, &[&found, expected])?;
    }
    expect_untouched(&lab)
}
