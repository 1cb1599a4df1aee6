//! Random edits of the spec, valid and invalid. The last valid one must always be in force. `EGRESS_TEST_EDITS` sets
//! how many.

use std::collections::BTreeSet;
use std::env;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result, ensure};
use egress_tests::addresses::{Network, Protocol, V4, V6};
use egress_tests::{Lab, Spec, eventually, skip_unless_lab_works};
use egress_userspace::dataplane::{Maps, Pins, RuleReport};
use fastrand::Rng;
use nix::sys::signal::Signal;

use crate::pod::Pod;

/// The default of `EGRESS_TEST_EDITS`.
const EDITS: usize = 150;
/// Few enough that rules are added, changed and removed.
const PORTS: u16 = 40;

/// Protocol, port, destination, target port; `any` and 0 for the fallback.
type Row = (String, u16, IpAddr, u16);

#[test]
fn the_rules_in_force_are_always_those_of_the_last_valid_spec() -> Result<()> {
    skip_unless_lab_works!();
    let edits = match env::var("EGRESS_TEST_EDITS") {
        Ok(number) => number
            .parse()
            .context("EGRESS_TEST_EDITS is not a number")?,
        Err(_) => EDITS,
    };
    let seed = fastrand::u64(..);
    eprintln!("seed {seed}");
    let mut random = Rng::with_seed(seed);
    let lab = Lab::new()?;
    let pod = Pod::start_in(&lab, &[])?;
    let maps = Pins::existing(&pod.pin_path()).maps()?;
    let mut expected = rows(&Spec::dual_stack());
    let mut in_force = Spec::dual_stack().yaml();
    let [mut applied, mut refused] = [0_u32; 2];
    for edit in 0..edits {
        let spec = random_spec(&mut random);
        let is_valid = random.bool();
        let text = if is_valid {
            spec.yaml()
        } else {
            invalid(&mut random, &spec)
        };
        if is_valid && text == in_force {
            continue;
        }
        pod.write_spec(&text)?;
        pod.signal(Signal::SIGHUP)?;
        if is_valid {
            applied += 1;
            expected = rows(&spec);
            in_force.clone_from(&text);
        } else {
            // The router may see the edit twice: by the file's time stamp and by the signal.
            refused += 1;
        }
        eventually("the router has seen the edit", || {
            let reloads = maps.instance()?.reloads;
            let is_seen = if is_valid {
                reloads.applied == applied
            } else {
                reloads.refused >= refused
            };
            Ok(is_seen.then_some(()))
        })?;
        refused = maps.instance()?.reloads.refused;
        let found = rows_in_force(&maps)?;
        ensure!(
            found == expected,
            "edit {edit} ({}):\n{text}\n{found:?}\ninstead of\n{expected:?}",
            if is_valid { "valid" } else { "invalid" }
        );
    }
    eprintln!("{edits} edits: {applied} applied, {refused} refused");
    Ok(())
}

fn rows_in_force(maps: &Maps) -> Result<BTreeSet<Row>> {
    let rules = maps.rules()?;
    let ids: BTreeSet<u32> = rules.iter().map(|rule| rule.id).collect();
    ensure!(ids.len() == rules.len(), "two rules have one id: {rules:?}");
    Ok(rules.into_iter().map(row).collect())
}

fn row(rule: RuleReport) -> Row {
    let target = rule.destination;
    (
        rule.protocol,
        rule.port.unwrap_or(0),
        target.address,
        target.port.unwrap_or(0),
    )
}

/// The rules that the router should report for a spec.
fn rows(spec: &Spec) -> BTreeSet<Row> {
    let rules = spec.rules.iter().map(|rule| {
        let protocol = match rule.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        };
        let server = rule.server();
        (protocol.to_owned(), rule.port, server.ip(), server.port())
    });
    let fallback = spec
        .fallback
        .map(|address| ("any".to_owned(), 0, address, 0));
    rules.chain(fallback).collect()
}

fn random_spec(random: &mut Rng) -> Spec {
    let mut taken = BTreeSet::new();
    let mut spec = Spec::dual_stack();
    // One rule of each family stays, so that both keep their reserved address.
    spec.rules
        .retain(|rule| *rule == V4.tls() || *rule == V6.tls());
    for _ in 0..random.usize(..60) {
        let network: &Network = if random.bool() { &V4 } else { &V6 };
        let kinds = [network.http(), network.datagram(), network.association()];
        let mut rule = kinds[random.usize(..kinds.len())];
        rule.port = 1 + random.u16(..PORTS);
        rule.target_port = if random.bool() {
            rule.port
        } else {
            random.u16(1..)
        };
        let key = (
            rule.protocol as u8,
            rule.port,
            rule.destination.address.is_ipv4(),
        );
        if taken.insert(key) {
            spec.rules.push(rule);
        }
    }
    random.shuffle(&mut spec.rules);
    if random.u8(..4) == 0 {
        spec.fallback = Some(Ipv4Addr::new(203, 0, 113, random.u8(1..9)).into());
    }
    spec
}

/// The spec with an error in it.
fn invalid(random: &mut Rng, spec: &Spec) -> String {
    let text = spec.yaml();
    match random.u8(..7) {
        0 => text.replacen("port: ", "port: -", 1),
        1 => text.replacen("protocol: ", "protocol: x", 1),
        2 => text.replacen("destinationIP: '", "destinationIP: '999.", 1),
        3 => text.replacen("kind: EgressRouter", "kind: Router", 1),
        4 => text.replacen("192.168.12.99", "192.168.12.98", 1),
        5 => String::new(),
        _ => {
            // Repeats the first rule.
            let rule = text.lines().find(|line| line.contains("- {port:"));
            let rule = rule.expect("a spec has at least two rules");
            text.replacen(rule, &format!("{rule}\n{rule}"), 1)
        }
    }
}
