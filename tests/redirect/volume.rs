//! High volume: many bytes, connections and clients.

use std::collections::HashSet;
use std::io::Write as _;
use std::net::TcpStream;
use std::thread;

use anyhow::{Context as _, Result};
use egress_tests::requirements::raise_open_file_limit;
use egress_tests::{Connection, Lab, Network, bulk, tcp, udp};

use crate::running::{datagrams_from_one_port, start};

over_each_family! {
    a_hundred_megabytes_arrive_unchanged_each_way,
    a_thousand_connections_exchange_data_while_all_are_open,
    ten_clients_with_one_source_port_each_get_their_own_answer_over_tcp,
    ten_clients_with_one_source_port_each_get_their_own_answer_over_udp,
}

fn a_hundred_megabytes_arrive_unchanged_each_way(network: &Network) -> Result<()> {
    const BYTES: u64 = 100_000_000;
    let lab = Lab::new()?;
    let _router = start(&lab)?;

    let upload = Connection::open(&lab, network.http())?;
    bulk::compare(upload.client, upload.server, BYTES, 1).context("uploading")?;
    let download = Connection::open(&lab, network.http())?;
    bulk::compare(download.server, download.client, BYTES, 2).context("downloading")?;

    let both = Connection::open(&lab, network.tls())?;
    let (client, server) = (both.client.try_clone()?, both.server.try_clone()?);
    let upload = thread::spawn(move || bulk::compare(both.client, both.server, BYTES / 10, 3));
    bulk::compare(server, client, BYTES / 10, 4).context("downloading while uploading")?;
    upload
        .join()
        .expect("no panic")
        .context("uploading while downloading")
}

fn a_thousand_connections_exchange_data_while_all_are_open(network: &Network) -> Result<()> {
    const CONNECTIONS: u32 = 1_000;
    raise_open_file_limit()?;
    let lab = Lab::new()?;
    let _router = start(&lab)?;

    let listener = tcp::listen(lab.servers(), network.http().server())?;
    let mut connections = Vec::new();
    let mut seen = HashSet::new();
    for number in 0..CONNECTIONS {
        let client = tcp::connect(lab.client(), network.http().service())
            .with_context(|| format!("connection {number}"))?;
        let (server, peer) = tcp::accept(&listener)?;
        seen.insert(peer);
        connections.push((client, server));
    }
    assert_eq!(
        seen.len(),
        connections.len(),
        "a port towards the server is used twice"
    );

    for round in 0..3_u32 {
        for (number, (mut client, _)) in (0..CONNECTIONS).zip(pairs(&connections)) {
            client.write_all(&question(round, number))?;
        }
        for (number, (client, server)) in (0..CONNECTIONS).zip(pairs(&connections)) {
            tcp::expect(server, &question(round, number))
                .with_context(|| format!("round {round} at the server of connection {number}"))?;
            tcp::send(server, client, &question(!round, number))
                .with_context(|| format!("round {round} of connection {number}"))?;
        }
    }
    Ok(())
}

fn ten_clients_with_one_source_port_each_get_their_own_answer_over_tcp(
    network: &Network,
) -> Result<()> {
    const SOURCE_PORT: u16 = 40_000;
    let lab = Lab::builder().clients(10).build()?;
    let _router = start(&lab)?;

    let listener = tcp::listen(lab.servers(), network.http().server())?;
    let from_the_port = tcp::Connector::default().source(network.on_any(SOURCE_PORT));
    let clients = thread::scope(|scope| {
        let connecting: Vec<_> = lab
            .clients()
            .iter()
            .map(|client| scope.spawn(|| from_the_port.connect(client, network.http().service())))
            .collect();
        connecting
            .into_iter()
            .map(|client| client.join().expect("no panic"))
            .collect::<Result<Vec<_>>>()
    })?;
    for (index, mut client) in clients.iter().enumerate() {
        assert_eq!(client.local_addr()?.port(), SOURCE_PORT);
        client.write_all(&[u8::try_from(index)?])?;
    }

    let mut seen = HashSet::new();
    let mut servers = Vec::new();
    for _ in &clients {
        let (server, peer) = tcp::accept(&listener)?;
        assert_eq!(peer.ip(), network.router_net1.address);
        seen.insert(peer);
        servers.push(server);
    }
    assert_eq!(
        seen.len(),
        clients.len(),
        "a port towards the server is used twice"
    );
    for server in &servers {
        let index = tcp::receive::<1>(server)?[0];
        tcp::send(
            server,
            &clients[usize::from(index)],
            format!("answer {index}").as_bytes(),
        )?;
    }
    Ok(())
}

fn ten_clients_with_one_source_port_each_get_their_own_answer_over_udp(
    network: &Network,
) -> Result<()> {
    let lab = Lab::builder().clients(10).build()?;
    let _router = start(&lab)?;

    let server = udp::bind(lab.servers(), network.datagram().server())?;
    let clients = datagrams_from_one_port(&lab, network.datagram().service())?;
    for (index, client) in clients.iter().enumerate() {
        client.send(&[u8::try_from(index)?])?;
    }
    let mut seen = HashSet::new();
    for _ in &clients {
        let (question, peer) = udp::receive(&server)?;
        assert_eq!(peer.ip(), network.router_net1.address);
        seen.insert(peer);
        server.send_to(&question, peer)?;
    }
    assert_eq!(
        seen.len(),
        clients.len(),
        "a port towards the server is used twice"
    );
    for (index, client) in clients.iter().enumerate() {
        assert_eq!(
            udp::receive(client)?.0,
            [u8::try_from(index)?],
            "client {index}"
        );
    }
    Ok(())
}

fn pairs(connections: &[(TcpStream, TcpStream)]) -> impl Iterator<Item = (&TcpStream, &TcpStream)> {
    connections.iter().map(|(client, server)| (client, server))
}

fn question(round: u32, number: u32) -> Vec<u8> {
    format!("round {round} of connection {number}").into_bytes()
}
