//! A flood of new flows into a full flow table.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use egress_tests::raw::RawSocket;
use egress_tests::tcp::exchange;
use egress_tests::{Lab, Namespace, Network, Protocol, eventually, tcp, udp};
use serde_json::Value;

use crate::running::start_with;

over_each_family! {
    connections_live_through_a_flood_of_new_flows_and_new_ones_succeed,
}

const MAX_FLOWS: &str = "4096";
const CONNECTIONS: usize = 200;
const NEW_CONNECTIONS: usize = 50;
/// The minimum and maximum number of packets of a flood.
const PACKETS: std::ops::RangeInclusive<usize> = 500_000..=5_000_000;

fn connections_live_through_a_flood_of_new_flows_and_new_ones_succeed(
    network: &Network,
) -> Result<()> {
    skip_on_nftables!("its table is the whole machine's");
    let lab = Lab::builder().clients(3).build()?;
    let [talkers, newcomer, flooder] = lab.clients() else {
        bail!("expected three clients");
    };
    let _router = start_with(&lab, &["--max-flows", MAX_FLOWS])?;
    let rule = network.http();
    let listener = tcp::listen(lab.servers(), rule.server())?;
    let connect = |client: &Namespace| -> Result<_> {
        let client = tcp::connect(client, rule.service())?;
        let (server, _) = tcp::accept(&listener)?;
        Ok((client, server))
    };
    let connections = (0..CONNECTIONS)
        .map(|_| connect(talkers))
        .collect::<Result<Vec<_>>>()?;
    // Nothing reads the datagrams, but none is refused with an ICMP error either.
    let _datagrams = udp::bind(lab.servers(), network.datagram().server())?;

    let flood = Flood::new(flooder, network)?;
    let is_enough = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = scope.spawn(|| flood.run(&is_enough));
        let newcomers = scope.spawn(|| {
            let result = wait_for_evictions(&lab).and_then(|()| {
                (0..NEW_CONNECTIONS).try_for_each(|number| {
                    let (client, server) = connect(newcomer)?;
                    exchange(&client, &server).with_context(|| format!("new connection {number}"))
                })
            });
            is_enough.store(true, Ordering::Relaxed);
            result
        });
        for round in 0_u32.. {
            if flood.is_finished() {
                break;
            }
            for (number, (client, server)) in connections.iter().enumerate() {
                let message = format!("round {round} of connection {number}");
                tcp::send(client, server, message.as_bytes())
                    .and_then(|()| tcp::send(server, client, message.as_bytes()))
                    .context(message)?;
            }
        }
        flood.join().expect("no panic")?;
        newcomers.join().expect("no panic")
    })?;

    ensure!(evictions(&lab)? > 0);
    let flows = lab.ask("flows")?;
    let is_connection = |flow: &&Value| {
        flow["client"]["address"] == network.client(0).address.to_string()
            && flow["state"] == "ESTABLISHED"
    };
    let established = flows.as_array().into_iter().flatten().filter(is_connection);
    assert_eq!(established.count(), CONNECTIONS);
    for (client, server) in &connections {
        exchange(client, server)?;
    }
    Ok(())
}

fn evictions(lab: &Lab) -> Result<u64> {
    let status = lab.ask("status")?;
    status["flows_evicted"]
        .as_u64()
        .with_context(|| format!("no number of evictions in {status:#}"))
}

/// Waits until the table is full and flows are evicted.
fn wait_for_evictions(lab: &Lab) -> Result<()> {
    eventually("the table is full", || {
        Ok((evictions(lab)? > 0).then_some(()))
    })
}

/// SYNs and datagrams from every port of a client.
struct Flood {
    tcp: RawSocket,
    udp: RawSocket,
    packets: Vec<[Vec<u8>; 2]>,
}

impl Flood {
    fn new(client: &Namespace, network: &Network) -> Result<Self> {
        let (stream, datagrams) = (network.http().service(), network.datagram().service());
        let packets = (1..=u16::MAX)
            .map(|port| {
                let source = SocketAddr::new(network.client(2).address, port);
                [
                    tcp::syn(source, stream),
                    udp::datagram(source, datagrams, b"a flood"),
                ]
            })
            .collect();
        Ok(Self {
            tcp: RawSocket::connect(client, Protocol::Tcp.number(), stream.ip())?,
            udp: RawSocket::connect(client, Protocol::Udp.number(), datagrams.ip())?,
            packets,
        })
    }

    /// Sends as fast as one thread can, until the minimum is reached and `is_enough` is set.
    fn run(&self, is_enough: &AtomicBool) -> Result<()> {
        for (number, [syn, datagram]) in self.packets.iter().cycle().enumerate() {
            let sent = 2 * number;
            let enough = sent >= *PACKETS.start() && is_enough.load(Ordering::Relaxed);
            if enough || sent >= *PACKETS.end() {
                break;
            }
            self.tcp.send(syn)?;
            self.udp.send(datagram)?;
        }
        Ok(())
    }
}
