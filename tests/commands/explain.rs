//! `explain` predicts correctly what happens to a packet.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, ensure};
use bytemuck::Zeroable as _;
use egress_common::{Flow, Ipv4Address, Pair, Port, Ports, Side, Translation, Tuple, protocol};
use egress_tests::addresses::{HTTP, ROUTER_ETH0, ROUTER_NET1, UNDEFINED_PORT, V4, V6, client};
use egress_tests::{
    Connection, Lab, Network, RouterProcess, Rule, Spec, eventually, skip_unless_lab_works, tcp,
    udp,
};
use egress_userspace::dataplane::{FamilyMaps, Instance};
use egress_userspace::net::kernel;
use serde_json::Value;

use crate::lab::{Running, outcome, status};
use crate::shell::{self, Finished, array, string};

const USAGE: i32 = 2;
const NOT_FORWARDED: i32 = 9;

fn explain(lab: &Lab, client: IpAddr, port: u16, protocol: &str) -> Result<Finished> {
    let (client, port) = (client.to_string(), port.to_string());
    let arguments = ["explain", &client, &port, protocol, "--output", "json"];
    shell::egress_router(lab.router(), &arguments)
}

/// Parses the output of `explain` after checking that its exit code matches `forwarded`.
fn explained(forwarded: bool, finished: Finished) -> Result<Value> {
    let code = if forwarded { 0 } else { NOT_FORWARDED };
    ensure!(finished.code == Some(code), "not {code}: {finished:?}");
    let explanation: Value = serde_json::from_str(&finished.stdout)?;
    assert_eq!(explanation["forwarded"], forwarded, "{explanation:#}");
    Ok(explanation)
}

fn find_step<'e>(explanation: &'e Value, name: &str) -> Result<&'e Value> {
    let steps = array(&explanation["steps"])?;
    let step = steps.iter().find(|step| step["name"] == name);
    step.with_context(|| format!("no step {name} in {explanation:#}"))
}

fn step<'e>(explanation: &'e Value, name: &str) -> Result<&'e str> {
    string(find_step(explanation, name)?, "/detail")
}

/// Checks that the last step is `name`, that it ends the packet's way, and that its detail contains all of `words`.
fn expect_end(explanation: &Value, name: &str, words: &[&str]) -> Result<()> {
    let last = array(&explanation["steps"])?.last().context("no step")?;
    ensure!(
        last["name"] == name && last["finding"] == "end",
        "{explanation:#}"
    );
    let detail = string(last, "/detail")?;
    for word in words {
        ensure!(
            detail.contains(word),
            "{detail:?} does not contain {word:?}"
        );
    }
    Ok(())
}

fn start_with_fallback(lab: &Lab, network: &Network) -> Result<RouterProcess> {
    let fallback = network.fallback_server.address;
    lab.start_router_by(&Spec::dual_stack().with_fallback(fallback))
}

#[test]
fn a_connection_by_a_rule_is_forwarded_and_each_step_says_how() -> Result<()> {
    const RULE: Rule = HTTP;
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    let client = client(0).address;
    let explain = || explained(true, explain(&lab, client, RULE.port, "tcp")?);
    let before = explain()?;
    ensure!(
        step(&before, "rule")?.ends_with(&RULE.server().to_string()),
        "{before:#}"
    );
    assert_eq!(step(&before, "source")?, ROUTER_NET1.address.to_string());
    ensure!(step(&before, "flows")?.starts_with("0 "), "{before:#}");

    let _connection = Connection::open(&lab, RULE)?;
    let after = explain()?;
    ensure!(step(&after, "flows")?.starts_with("1 "), "{after:#}");
    for way in ["way out", "way back"] {
        ensure!(step(&after, way)?.starts_with("by "), "{after:#}");
    }
    let (client, port) = (client.to_string(), RULE.port.to_string());
    let arguments = ["explain", &client, &port, "TCP"];
    let text = shell::egress_router(lab.router(), &arguments)?.success()?;
    ensure!(text.ends_with("\nforwarded\n"), "{text}");
    Ok(())
}

#[test]
fn a_connection_over_ipv6_meets_the_rules_and_addresses_of_ipv6() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = lab.start_router_by(&Spec::dual_stack())?;
    let rule = V6.http();
    let explanation = explained(true, explain(&lab, V6.client(0).address, rule.port, "tcp")?)?;
    ensure!(
        step(&explanation, "rule")?.ends_with(&rule.server().to_string()),
        "{explanation:#}"
    );
    assert_eq!(
        step(&explanation, "source")?,
        V6.router_net1.address.to_string()
    );
    let gateway = format!("by {}", V6.gateway.address);
    ensure!(
        step(&explanation, "way out")?.starts_with(&gateway),
        "{explanation:#}"
    );
    Ok(())
}

#[test]
fn a_connection_without_a_rule_is_not_forwarded() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    for (port, protocol, said) in [
        (UNDEFINED_PORT, "tcp", "no_rule"),
        (UNDEFINED_PORT, "sctp", "sctp_refused"),
        (4321, "icmp", "no_rule"),
    ] {
        let finished = explain(&lab, client(0).address, port, protocol)?;
        expect_end(&explained(false, finished)?, "rule", &[said])?;
    }
    let (client, port) = (client(0).address.to_string(), UNDEFINED_PORT.to_string());
    let arguments = ["explain", &client, &port, "tcp"];
    let finished = shell::egress_router(lab.router(), &arguments)?;
    ensure!(
        finished.stdout.contains("the pod's own stack")
            && finished.stdout.ends_with("\nnot forwarded\n"),
        "{finished:?}"
    );
    Ok(())
}

#[test]
fn every_other_port_and_a_ping_go_to_the_fallback() -> Result<()> {
    skip_unless_lab_works!();
    for network in [V4, V6] {
        let lab = Lab::new()?;
        let _router = start_with_fallback(&lab, &network)?;
        let server = network.fallback_server.address;
        let client = network.client(0).address;
        let ping = if server.is_ipv4() { "icmp" } else { "ICMPv6" };
        for protocol in ["tcp", "udp", "sctp"] {
            let finished = explain(&lab, client, UNDEFINED_PORT, protocol)?;
            let explanation = explained(true, finished)?;
            let to = SocketAddr::new(server, UNDEFINED_PORT).to_string();
            ensure!(
                step(&explanation, "rule")?.ends_with(&to),
                "{explanation:#}"
            );
        }
        let explanation = explained(true, explain(&lab, client, 4321, ping)?)?;
        let to = format!("to {server}");
        ensure!(
            step(&explanation, "rule")?.ends_with(&to),
            "{explanation:#}"
        );
        step(&explanation, "nat id")?;
    }
    Ok(())
}

#[test]
fn the_fallback_leaves_a_port_on_which_the_pod_listens_to_the_pod() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start_with_fallback(&lab, &V4)?;
    let explain = |protocol| explain(&lab, client(0).address, UNDEFINED_PORT, protocol);
    let own = SocketAddr::new(ROUTER_ETH0.address, UNDEFINED_PORT);
    let says = [&own.to_string(), "no_rule"];

    let listener = tcp::listen(lab.router(), own)?;
    expect_end(&explained(false, explain("tcp")?)?, "rule", &says)?;
    explained(true, explain("udp")?)?;
    tcp::connect(lab.client(), own)?;
    drop(listener);

    let socket = udp::bind(lab.router(), own)?;
    expect_end(&explained(false, explain("udp")?)?, "rule", &says)?;
    drop(socket);

    // IPv4 can use this socket, too.
    let any = SocketAddr::new(V6.on_any(0).ip(), UNDEFINED_PORT);
    let _listener = tcp::listen(lab.router(), any)?;
    let explanation = explained(true, explain("tcp")?)?;
    assert_eq!(find_step(&explanation, "rule")?["finding"], "doubt");
    Ok(())
}

/// Inserts flows to a server into a running router's flow table, each with its own client and NAT port.
fn enter<'p>(
    lab: &Lab,
    rule: Rule,
    ports: impl Iterator<Item = u16> + Send + 'p,
    replies: u64,
) -> Result<()> {
    lab.router().run(|| {
        let Instance { mut maps, .. } = Instance::only(None)?;
        for port in ports {
            insert(&mut maps.v4, rule, port, replies)?;
        }
        Ok(())
    })
}

fn insert(maps: &mut FamilyMaps<Ipv4Address>, rule: Rule, port: u16, replies: u64) -> Result<()> {
    let v4 = |address: IpAddr| match address {
        IpAddr::V4(address) => Ok(Ipv4Address::from(address)),
        IpAddr::V6(_) => anyhow::bail!("{address} is not an IPv4 address"),
    };
    let client = v4(client(1).address)?;
    let port = Port::new(port);
    let tuple = Tuple::new(
        Side::Cluster,
        protocol::UDP,
        Pair {
            source: client,
            destination: v4(rule.service().ip())?,
        },
        Ports {
            source: port,
            destination: Port::new(rule.port),
        },
    );
    let out = Tuple::new(
        Side::Egress,
        protocol::UDP,
        Pair {
            source: v4(rule.server().ip())?,
            destination: v4(ROUTER_NET1.address)?,
        },
        Ports {
            source: Port::new(rule.target_port),
            destination: port,
        },
    );
    let mut original: Flow<Ipv4Address> = Flow::zeroed();
    original.opened_ns = kernel::monotonic_ns();
    original.last_seen_ns = original.opened_ns;
    original.traffic.packets = 1;
    let mut reply = original;
    reply.traffic.packets = replies;
    original.translation = Translation::new(&tuple, out.addresses.swapped(), out.ports.swapped());
    reply.translation = Translation::new(&out, tuple.addresses.swapped(), tuple.ports.swapped());
    maps.flows.insert(tuple, original, 0)?;
    maps.flows.insert(out, reply, 0)?;
    Ok(())
}

#[test]
fn a_full_table_ends_it_unless_a_flow_that_was_only_begun_makes_room() -> Result<()> {
    const MAX_FLOWS: u16 = 8;
    const RULE: Rule = V4.datagram();
    skip_unless_lab_works!();
    let lab = Lab::builder().clients(2).build()?;
    let _router = Running::start(&lab, &["--max-flows", &MAX_FLOWS.to_string()])?;
    let explain = || explain(&lab, client(0).address, RULE.port, "udp");
    let first = 50_000;
    enter(&lab, RULE, first..first + MAX_FLOWS, 1)?;
    let explanation = explained(false, explain()?)?;
    expect_end(&explanation, "table", &["8 of 8", "flow_table_full"])?;
    // The prediction is true.
    udp::connect(lab.client(), RULE.service())?.send(b"question")?;
    eventually("a datagram found no room", || {
        Ok((outcome(&status(&lab)?, "flow_table_full")? > 0).then_some(()))
    })?;

    enter(&lab, RULE, first..=first, 0)?;
    let explanation = explained(true, explain()?)?;
    let table = find_step(&explanation, "table")?;
    assert_eq!(table["finding"], "doubt", "{table:#}");
    ensure!(
        string(table, "/detail")?.contains("one of the 1 "),
        "{table:#}"
    );
    Ok(())
}

#[test]
fn without_a_free_port_towards_the_server_it_ends() -> Result<()> {
    const RULE: Rule = V4.datagram();
    // The pod's local port range takes all other ports from 1024 on.
    const NAT_PORTS: std::ops::RangeInclusive<u16> = 65_530..=65_535;
    skip_unless_lab_works!();
    let lab = Lab::builder().clients(2).build()?;
    let range = "1024 65529";
    lab.router()
        .set_sysctl("net.ipv4.ip_local_port_range", range)?;
    let _router = Running::start(&lab, &[])?;
    let explain = |port, protocol| explain(&lab, client(0).address, port, protocol);
    let explanation = explained(true, explain(RULE.port, "udp")?)?;
    ensure!(
        step(&explanation, "nat port")?.starts_with("6 of 6 free"),
        "{explanation:#}"
    );
    enter(&lab, RULE, NAT_PORTS, 1)?;
    let explanation = explained(false, explain(RULE.port, "udp")?)?;
    expect_end(&explanation, "nat port", &["none of 6", "no_free_port"])?;
    // The prediction is true.
    udp::connect(lab.client(), RULE.service())?.send(b"question")?;
    eventually("a datagram found no port", || {
        Ok((outcome(&status(&lab)?, "no_free_port")? > 0).then_some(()))
    })?;
    // Towards another server, the same ports are free.
    explained(true, explain(HTTP.port, "tcp")?)?;
    Ok(())
}

#[test]
fn a_gateway_that_does_not_answer_ends_the_connection() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    let explain = || explain(&lab, client(0).address, HTTP.port, "tcp");
    let gateway = V4.gateway.address;
    lab.router()
        .ip([format!("neighbour replace {gateway} dev net1 nud failed")])?;
    let explanation = explained(false, explain()?)?;
    let way = find_step(&explanation, "way out")?;
    assert_eq!(way["finding"], "end", "{way:#}");
    ensure!(string(way, "/detail")?.contains("FAILED"), "{way:#}");

    lab.router().ip([format!(
        "neighbour replace {gateway} lladdr 02:00:00:00:00:01 dev net1 nud permanent"
    )])?;
    let explanation = explained(true, explain()?)?;
    ensure!(
        step(&explanation, "way out")?.contains("02:00:00:00:00:01"),
        "{explanation:#}"
    );
    Ok(())
}

#[test]
fn an_interface_without_arp_misses_no_address() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    // A netkit in L3 mode or a tunnel has ARP off from the start.
    lab.router().ip(["link set net1 arp off"])?;
    let explanation = explained(true, explain(&lab, client(0).address, HTTP.port, "tcp")?)?;
    let way = find_step(&explanation, "way out")?;
    assert_eq!(way["finding"], "good", "{way:#}");
    let by_gateway = format!("by {}", V4.gateway.address);
    assert_eq!(string(way, "/detail")?, by_gateway);
    Ok(())
}

#[test]
fn a_ping_of_the_other_family_is_wrong_usage() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    for (client, protocol) in [(V4.client(0), "icmpv6"), (V6.client(0), "icmp")] {
        explain(&lab, client.address, 1, protocol)?.failure(USAGE, &["requires an IPv"])?;
    }
    Ok(())
}
