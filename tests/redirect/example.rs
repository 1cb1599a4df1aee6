//! The documentation's example with a fallback: all kinds of traffic through one router.

use std::fs;
use std::io;
use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use egress_tests::addresses::UNDEFINED_PORT;
use egress_tests::http::{self, HttpServer};
use egress_tests::icmp::{self, IcmpError, Kind};
use egress_tests::router::dual_stack_example;
use egress_tests::{
    Capture, Lab, Network, PATIENCE, dns, nftables, requirements, socket, tcp, udp,
};

use crate::mtu::{exchange_by_attempts, narrow_cluster, transfer_both_ways};
use crate::running::Running;
use crate::sctp::Association;

over_each_family! {
    the_example_with_a_fallback_carries_every_kind_of_traffic,
}

fn the_example_with_a_fallback_carries_every_kind_of_traffic(network: &Network) -> Result<()> {
    skip_on_nftables!("it clamps no segment size");
    let lab = Lab::new()?;
    if let Err(reason) = lose_icmp_errors(&lab) {
        let test = egress_tests::function_name!();
        requirements::skipped(test, &format!("needs curl and nftables: {reason:#}"));
        return Ok(());
    }
    narrow_cluster(&lab)?;
    let _router = start_example(&lab, network)?;

    // This must run first, before any host has learnt the path MTU in another way.
    transfer_both_ways(&lab, network).context("a transfer without ICMP")?;
    for host in [lab.client(), lab.servers()] {
        nftables::take_icmp_errors(host)?;
    }
    get_pages(&lab, network).context("curl")?;
    icmp::ping(lab.client(), network.router_eth0.address, PATIENCE)?;
    trace_route(&lab, network).context("traceroute")?;
    resolve(&lab, network).context("DNS")?;
    associate(&lab, network).context("SCTP")
}

fn lose_icmp_errors(lab: &Lab) -> Result<()> {
    lab.client().output("curl", ["--version"])?;
    nftables::lose_icmp_errors(lab.client())?;
    nftables::lose_icmp_errors(lab.servers())
}

/// Starts the router with the example, which has a fallback for one family.
fn start_example(lab: &Lab, network: &Network) -> Result<Running> {
    const FALLBACK: &str = "fallbackIP: 203.0.113.99";
    let example = fs::read_to_string(dual_stack_example())?;
    ensure!(
        example.contains(FALLBACK),
        "the example has another fallback"
    );
    let fallback = format!("fallbackIP: '{}'", network.fallback_server.address);
    let spec = example.replace(FALLBACK, &fallback);
    Ok(Running(Some(lab.start_router_with(&spec, &[])?)))
}

fn on_fallback(network: &Network, port: u16) -> SocketAddr {
    SocketAddr::new(network.fallback_server.address, port)
}

/// Fetches pages through a rule and through the fallback.
fn get_pages(lab: &Lab, network: &Network) -> Result<()> {
    let rule = network.http();
    let pages = [
        (rule.service(), rule.server()),
        (
            network.on_eth0(UNDEFINED_PORT),
            on_fallback(network, UNDEFINED_PORT),
        ),
    ];
    for (service, server) in pages {
        let _server = HttpServer::start(lab.servers(), server)?;
        let seen = http::seen_by_the_server(lab.client(), service)?;
        assert_eq!(seen, network.router_net1.address);
        let body = http::get(lab.client(), service, "bytes/1000000")?;
        assert_eq!(body.len(), 1_000_000);
    }
    Ok(())
}

/// The router, the gateway and the server answer, all with the one address that the client knows.
fn trace_route(lab: &Lab, network: &Network) -> Result<()> {
    let at_client = Capture::on(lab.client(), "eth0")?;
    let hops = [
        (1, Kind::HopLimitExceeded, io::ErrorKind::HostUnreachable),
        (2, Kind::HopLimitExceeded, io::ErrorKind::HostUnreachable),
        (3, Kind::PortUnreachable, io::ErrorKind::ConnectionRefused),
    ];
    for (hop, kind, told) in hops {
        let place = || format!("hop {hop}");
        // The ports that traceroute(8) uses.
        let service = network.on_eth0(33_433 + u16::from(hop));
        let client = udp::connect(lab.client(), service)?;
        socket::set_hop_limit(&client, hop)?;
        socket::receive_every_error(&client)?;
        client.send(&[b'?'; 32])?;
        let error = udp::receive(&client).expect_err("nobody sends anything");
        ensure!(
            tcp::error_kind(&error) == Some(told),
            "expected {told:?} about {}: {error:#}",
            place()
        );
        let expected = IcmpError {
            kind,
            source: client.local_addr()?,
            destination: service,
        };
        at_client
            .wait_for("the router's answer", PATIENCE, |packet| {
                packet.source == network.router_eth0.address
                    && IcmpError::of(packet) == Some(expected)
            })
            .with_context(place)?;
    }
    Ok(())
}

/// The answer exceeds a packet on both sides of the router.
fn resolve(lab: &Lab, network: &Network) -> Result<()> {
    const ID: u16 = 0x1234;
    let server = udp::bind(lab.servers(), on_fallback(network, dns::PORT))?;
    let client = udp::connect(lab.client(), network.on_eth0(dns::PORT))?;
    exchange_by_attempts(&client, &server, &dns::question(ID)?, &dns::answer(ID)?)
}

/// Uses the example's SCTP rule for IPv6, and the fallback for IPv4.
fn associate(lab: &Lab, network: &Network) -> Result<()> {
    let service = network.on_eth0(network.association().port);
    let server = if service.is_ipv6() {
        network.tls_server.address
    } else {
        network.fallback_server.address
    };
    let server = SocketAddr::new(server, service.port());
    Association::open(lab, network, service, server)?.carry_data_and_shut_down()
}
