//! How connections end.

use std::net::{Shutdown, TcpStream};

use anyhow::{Context as _, Result};
use egress_tests::{Capture, Connection, Lab, Network, PATIENCE, tcp};

use crate::running::{expect_refusal, start};

over_each_family! {
    a_client_may_close_first,
    a_server_may_close_first,
    a_reset_by_the_client_reaches_the_server,
    a_reset_by_the_server_reaches_the_client,
    a_refusal_by_the_server_reaches_the_client,
    a_source_port_can_be_used_again_after_a_close_and_after_a_reset,
}

fn a_client_may_close_first(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let Connection { client, server, .. } = Connection::open(&lab, network.http())?;
    closes_first(&client, &server)
}

fn a_server_may_close_first(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let Connection { client, server, .. } = Connection::open(&lab, network.http())?;
    closes_first(&server, &client)
}

fn a_reset_by_the_client_reaches_the_server(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let Connection { client, server, .. } = Connection::open(&lab, network.http())?;
    tcp::send(&client, &server, b"goodbye")?;
    tcp::reset(client)?;
    tcp::expect_reset(&server)
}

fn a_reset_by_the_server_reaches_the_client(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let Connection { client, server, .. } = Connection::open(&lab, network.http())?;
    tcp::send(&client, &server, b"hello")?;
    tcp::reset(server)?;
    tcp::expect_reset(&client)
}

fn a_refusal_by_the_server_reaches_the_client(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let at_server = Capture::on(lab.servers(), "uplink0")?;

    expect_refusal(lab.client(), network.http().service())?;
    at_server.wait_for("a refusal by the server itself", PATIENCE, |packet| {
        packet.source == network.http().server().ip()
            && packet.destination == network.router_net1.address
    })?;
    Ok(())
}

fn a_source_port_can_be_used_again_after_a_close_and_after_a_reset(
    network: &Network,
) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let listener = tcp::listen(lab.servers(), network.http().server())?;
    let from_one_port = tcp::Connector::default().source(network.on_any(40_000));
    for round in 0..6_u8 {
        let client = from_one_port
            .connect(lab.client(), network.http().service())
            .with_context(|| format!("round {round}"))?;
        let (server, _) = tcp::accept(&listener)?;
        tcp::send(&client, &server, &[round])?;
        if round % 2 == 0 {
            // The server's end goes into TIME_WAIT, which leaves the client's port free.
            closes_first(&server, &client)?;
        } else {
            tcp::reset(client)?;
            tcp::expect_reset(&server)?;
        }
    }
    Ok(())
}

/// The second end sends data after the first has closed its side, and then closes, too.
pub fn closes_first(first: &TcpStream, second: &TcpStream) -> Result<()> {
    tcp::send(first, second, b"all that I have to say")?;
    first.shutdown(Shutdown::Write)?;
    tcp::expect_end(second)?;
    for _ in 0..10 {
        tcp::send(second, first, &[b'.'; 5_000]).context("on the half-closed connection")?;
    }
    second.shutdown(Shutdown::Write)?;
    tcp::expect_end(first)
}
