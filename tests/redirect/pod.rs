//! The pod's own traffic.

use std::io;

use anyhow::{Context as _, Result};
use egress_tests::addresses::UNDEFINED_PORT;
use egress_tests::tcp::exchange;
use egress_tests::{Connection, Lab, Network, PATIENCE, icmp, tcp, udp};

use crate::running::{expect_refusal, start};

over_each_family! {
    an_undefined_port_is_refused_by_the_pod,
    a_listener_in_the_pod_is_reached_on_a_port_without_rule,
    a_connection_of_the_pod_itself_leaves_by_net1,
    ip_forwarding_stays_off,
}

fn an_undefined_port_is_refused_by_the_pod(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;

    expect_refusal(lab.client(), network.on_eth0(UNDEFINED_PORT))?;
    expect_refusal(lab.client(), network.on_eth0(network.datagram().port))
        .context("a port that only UDP has")?;

    let client = udp::connect(lab.client(), network.on_eth0(UNDEFINED_PORT))?;
    client.send(b"anybody?")?;
    let error = udp::receive(&client).expect_err("nobody listens there");
    assert_eq!(
        tcp::error_kind(&error),
        Some(io::ErrorKind::ConnectionRefused),
        "{error:#}"
    );
    Ok(())
}

fn a_listener_in_the_pod_is_reached_on_a_port_without_rule(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;

    let listener = tcp::listen(lab.router(), network.on_any(UNDEFINED_PORT))?;
    let client = tcp::connect(lab.client(), network.on_eth0(UNDEFINED_PORT))?;
    let (server, peer) = tcp::accept(&listener)?;
    assert_eq!(
        peer.ip(),
        network.client(0).address,
        "the pod sees the client itself"
    );
    exchange(&client, &server)?;
    icmp::ping(lab.client(), network.router_eth0.address, PATIENCE)?;
    Ok(())
}

fn a_connection_of_the_pod_itself_leaves_by_net1(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;

    let listener = tcp::listen(lab.servers(), network.http().server())?;
    let client = tcp::connect(lab.router(), network.http().server())?;
    let (server, peer) = tcp::accept(&listener)?;
    assert_eq!(peer.ip(), network.router_net1.address);
    exchange(&client, &server)?;

    let server = udp::bind(lab.servers(), network.datagram().server())?;
    let client = udp::connect(lab.router(), network.datagram().server())?;
    let seen = udp::exchange(&client, &server, b"question", b"answer")?;
    assert_eq!(seen.ip(), network.router_net1.address);
    Ok(())
}

fn ip_forwarding_stays_off(network: &Network) -> Result<()> {
    skip_on_nftables!("the kernel's NAT needs IP forwarding");
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let _connection = Connection::open(&lab, network.http())?;
    for family in ["ipv4", "ipv6"] {
        for interface in ["all", "eth0", "net1"] {
            let name = format!("net.{family}.conf.{interface}.forwarding");
            assert_eq!(lab.router().sysctl(&name)?, "0", "{name}");
        }
    }
    Ok(())
}
