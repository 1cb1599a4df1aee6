//! The hosts next to the router, which ARP and neighbour discovery have to find.

use anyhow::{Context as _, Result};
use egress_tests::{Lab, Network, tcp};

use crate::running::{connect, start};

over_each_family! {
    traffic_goes_on_when_neighbours_are_forgotten_on_both_sides,
}

fn traffic_goes_on_when_neighbours_are_forgotten_on_both_sides(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let connection = connect(&lab, network.http())?;
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
        // Who speaks first has to find the others.
        let (first, second) = if round % 2 == 0 {
            (&connection.client, &connection.server)
        } else {
            (&connection.server, &connection.client)
        };
        tcp::send(first, second, b"are you still there?")
            .and_then(|()| tcp::send(second, first, b"I am"))
            .with_context(|| format!("round {round}"))?;
    }
    connect(&lab, network.tls())?.exchange()
}
