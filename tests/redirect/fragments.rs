//! Datagrams longer than a packet.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use egress_tests::{Lab, Network, fragment, udp};

use crate::running::{datagrams_from_one_port, start};

over_each_family! {
    datagrams_of_any_length_and_their_answers_arrive,
    datagrams_of_two_clients_with_one_source_port_are_not_mixed_up,
    fragments_arrive_in_whatever_order_the_network_delivers_them,
}

fn datagrams_of_any_length_and_their_answers_arrive(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let server = udp::bind(lab.servers(), network.datagram().server())?;
    let client = udp::connect(lab.client(), network.datagram().service())?;
    for length in [100, 3_000, 20_000, 60_000] {
        let (question, answer) = (text(1, length), text(2, length));
        // Twice: the first datagram opens the flow, the second finds it.
        for round in ["first", "second"] {
            let seen = udp::exchange(&client, &server, &question, &answer)
                .with_context(|| format!("the {round} datagram of {length} bytes"))?;
            assert_eq!(seen.ip(), network.router_net1.address);
        }
    }
    Ok(())
}

fn datagrams_of_two_clients_with_one_source_port_are_not_mixed_up(network: &Network) -> Result<()> {
    const LENGTH: usize = 20_000;
    let lab = Lab::builder().clients(2).build()?;
    let _router = start(&lab)?;
    let server = udp::bind(lab.servers(), network.datagram().server())?;
    let clients = datagrams_from_one_port(&lab, network.datagram().service())?;
    for round in 0..3 {
        for (seed, client) in (0..).zip(&clients) {
            udp::exchange(
                client,
                &server,
                &text(seed, LENGTH),
                &text(seed + 100, LENGTH),
            )
            .with_context(|| format!("round {round} of client {seed}"))?;
        }
    }
    Ok(())
}

fn fragments_arrive_in_whatever_order_the_network_delivers_them(network: &Network) -> Result<()> {
    const CLIENT_PORT: u16 = 20_000;
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let server = udp::bind(lab.servers(), network.datagram().server())?;
    let service = network.datagram().service();
    let client = udp::connect_from(lab.client(), CLIENT_PORT, service)?;
    let own = SocketAddr::new(network.client(0).address, CLIENT_PORT);
    let mut seen = network.datagram().server();
    for (id, order) in (1..).zip([[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2]]) {
        let question = text(3, 1_600);
        let fragments = fragment::cut(&udp::packet(own, service, &question)?, 408, id)?;
        fragment::send(lab.client(), service, order.map(|place| &fragments[place]))?;
        let (received, from) = udp::receive(&server).with_context(|| format!("order {order:?}"))?;
        assert!(received == question, "order {order:?}: another datagram");
        seen = from;

        let answer = text(4, 1_600);
        let packet = udp::packet(network.datagram().server(), seen, &answer)?;
        let fragments = fragment::cut(&packet, 408, id)?;
        fragment::send(lab.servers(), seen, order.map(|place| &fragments[place]))?;
        let (received, _) =
            udp::receive(&client).with_context(|| format!("order {order:?}, back"))?;
        assert!(
            received == answer,
            "order {order:?}, back: another datagram"
        );
    }
    assert_eq!(seen.ip(), network.router_net1.address);
    Ok(())
}

/// Bytes in which any two fragments differ.
fn text(seed: u8, length: usize) -> Vec<u8> {
    (0..=250)
        .map(|byte: u8| byte.wrapping_add(seed))
        .cycle()
        .take(length)
        .collect()
}
