//! The hosts next to the router, which ARP and neighbour discovery must resolve.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use egress_tests::namespace::Mac;
use egress_tests::{Capture, Connection, Lab, Network, PATIENCE, tcp};

use crate::running::start;

over_each_family! {
    traffic_goes_on_when_neighbours_are_forgotten_on_both_sides,
    traffic_follows_a_gateway_that_has_another_mac_address,
    traffic_goes_on_without_the_process_that_keeps_next_hops,
}

fn traffic_goes_on_when_neighbours_are_forgotten_on_both_sides(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let connection = Connection::open(&lab, network.http())?;
    for round in 0..5 {
        let forgetful = [
            (lab.client(), "eth0"),
            (lab.router(), "eth0"),
            (lab.router(), "net1"),
            (lab.gateway(), "lan0"),
        ];
        for (host, interface) in forgetful {
            host.ip([format!("neighbour flush dev {interface}")])?;
        }
        // The end that sends first makes the hosts on its way resolve the others.
        let (first, second) = if round % 2 == 0 {
            (&connection.client, &connection.server)
        } else {
            (&connection.server, &connection.client)
        };
        tcp::send(first, second, b"are you still there?")
            .and_then(|()| tcp::send(second, first, b"I am"))
            .with_context(|| format!("round {round}"))?;
    }
    Connection::open(&lab, network.tls())?.exchange()
}

/// Exchanges packets on a connection until its next hops are known and used.
fn warm_up(connection: &Connection) -> Result<()> {
    // A flow looks its next hop up again about once a second.
    let end = Instant::now() + Duration::from_millis(2_500);
    while Instant::now() < end {
        connection.exchange()?;
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Gives the gateway another MAC address, which it announces.
fn change_gateway(lab: &Lab, last: u8) -> Result<Mac> {
    for notify in ["ipv4.conf.lan0.arp_notify", "ipv6.conf.lan0.ndisc_notify"] {
        lab.gateway().set_sysctl(&format!("net.{notify}"), "1")?;
    }
    let mac = Mac([0x02, 0, 0x5e, 0, 0, last]);
    lab.gateway()
        .ip([format!("link set lan0 address 02:00:5e:00:00:{last:02x}")])?;
    Ok(mac)
}

fn traffic_follows_a_gateway_that_has_another_mac_address(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let connection = Connection::open(&lab, network.http())?;
    warm_up(&connection)?;
    for last in 1..=3 {
        let mac = change_gateway(&lab, last)?;
        let at_gateway = Capture::on(lab.gateway(), "lan0")?;
        // TCP retransmits lost segments until the router knows the new address.
        connection.exchange()?;
        at_gateway.wait_for("a segment to the new address", PATIENCE, |packet| {
            packet.source == network.router_net1.address && packet.destination_mac == mac
        })?;
        warm_up(&connection)?;
    }
    Ok(())
}

fn traffic_goes_on_without_the_process_that_keeps_next_hops(network: &Network) -> Result<()> {
    skip_on_nftables!("it has no process");
    let lab = Lab::new()?;
    let router = start(&lab)?;
    let connection = Connection::open(&lab, network.http())?;
    warm_up(&connection)?;
    let process = router.0.as_ref().context("the router is not running")?;
    let _suspended = process.suspend()?;
    change_gateway(&lab, 7)?;
    warm_up(&connection)?;
    Connection::open(&lab, network.tls())?.exchange()
}
