//! A router whose interfaces are not a veth and a macvlan.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use egress_tests::addresses::UNDEFINED_PORT;
use egress_tests::{
    ClusterLink, Connection, EgressLink, Lab, Network, PATIENCE, Spec, bulk, icmp,
    skip_without_links, udp,
};

use crate::running::start_by;

over_each_family! {
    net1_may_be_an_ipvlan,
    eth0_may_be_a_netkit,
    eth0_may_be_a_netkit_without_mac_addresses_and_net1_an_ipvlan,
}

const BYTES: u64 = 300_000;

fn net1_may_be_an_ipvlan(network: &Network) -> Result<()> {
    skip_without_links!(EgressLink::IpvlanL2);
    carry_everything(network, ClusterLink::Veth, EgressLink::IpvlanL2)
}

fn eth0_may_be_a_netkit(network: &Network) -> Result<()> {
    skip_without_links!(ClusterLink::NetkitL2);
    carry_everything(network, ClusterLink::NetkitL2, EgressLink::Macvlan)
}

fn eth0_may_be_a_netkit_without_mac_addresses_and_net1_an_ipvlan(network: &Network) -> Result<()> {
    skip_without_links!(ClusterLink::NetkitL3, EgressLink::IpvlanL2);
    carry_everything(network, ClusterLink::NetkitL3, EgressLink::IpvlanL2)
}

/// Sends traffic through these interfaces by rules and by the fallback, in both directions.
fn carry_everything(network: &Network, eth0: ClusterLink, net1: EgressLink) -> Result<()> {
    let lab = Lab::builder().eth0(eth0).net1(net1).build()?;
    let fallback = network.fallback_server.address;
    let _router = start_by(&lab, &Spec::dual_stack().with_fallback(fallback))?;

    let connection = Connection::open(&lab, network.http()).context("by a rule")?;
    assert_eq!(connection.seen_by_server.ip(), network.router_net1.address);
    connection.exchange()?;
    bulk::compare(connection.client, connection.server, BYTES, 1).context("uploading")?;
    let connection = Connection::open(&lab, network.tls())?;
    bulk::compare(connection.server, connection.client, BYTES, 2).context("downloading")?;

    let server = udp::bind(lab.servers(), network.datagram().server())?;
    let client = udp::connect(lab.client(), network.datagram().service())?;
    for length in [0, 1, 1_452] {
        let seen = udp::exchange(&client, &server, &vec![b'q'; length], &vec![b'a'; length])?;
        assert_eq!(seen.ip(), network.router_net1.address);
    }

    let server = SocketAddr::new(fallback, UNDEFINED_PORT);
    Connection::open_to(&lab, network.on_eth0(UNDEFINED_PORT), server)
        .and_then(|connection| connection.exchange())
        .context("by the fallback")?;
    icmp::ping(lab.client(), network.router_eth0.address, PATIENCE)
}
