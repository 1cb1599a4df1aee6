//! NAT ports, and their exhaustion.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use egress_tests::tcp::exchange;
use egress_tests::{Lab, Network, eventually, tcp};

use crate::closing::closes_first;
use crate::running::{outcome, start_with};

over_each_family! {
    every_port_of_the_range_takes_a_connection_and_one_that_closes_makes_way_for_another,
}

/// The local port range of the pod's own sockets. It leaves 65336 to 65535 as the NAT range.
const LOCAL_PORTS: &str = "1024 65335";
const NAT_RANGE: std::ops::RangeInclusive<u16> = 65_336..=65_535;
const CLIENTS: u8 = 4;

fn every_port_of_the_range_takes_a_connection_and_one_that_closes_makes_way_for_another(
    network: &Network,
) -> Result<()> {
    skip_on_nftables!("it uses other ports, and is asked for its state in another way");
    let lab = Lab::builder().clients(CLIENTS).build()?;
    lab.router()
        .set_sysctl("net.ipv4.ip_local_port_range", LOCAL_PORTS)?;
    let _router = start_with(&lab, &["--timeout", "tcp_time_wait=1"])?;
    let listener = tcp::listen(lab.servers(), network.http().server())?;
    let service = network.http().service();

    let mut connections = Vec::new();
    let mut reserved = HashSet::new();
    for client in lab.clients().iter().cycle().take(NAT_RANGE.len()) {
        let client = tcp::connect(client, service)?;
        let (server, seen) = tcp::accept(&listener)?;
        ensure!(
            NAT_RANGE.contains(&seen.port()),
            "{seen} is out of the range"
        );
        ensure!(reserved.insert(seen), "{seen} is allocated twice");
        connections.push((client, server));
    }
    for (client, server) in &connections {
        exchange(client, server)?;
    }

    expect_no_answer(&lab, network)?;
    ensure!(outcome(&lab, "no_free_port")? > 0);

    let (client, server) = connections.pop().context("there are no connections")?;
    closes_first(&client, &server)?;
    drop((client, server));
    wait_for_flows(&lab, connections.len())?;
    let client = tcp::connect(lab.client(), service)?;
    let (server, seen) = tcp::accept(&listener)?;
    ensure!(
        reserved.contains(&seen),
        "{seen} is not a port that was freed"
    );
    exchange(&client, &server)
}

/// Tries to connect for long enough to retransmit the SYN.
fn expect_no_answer(lab: &Lab, network: &Network) -> Result<()> {
    let attempt = tcp::Connector::default()
        .timeout(Duration::from_millis(1_500))
        .connect(lab.client(), network.http().service());
    let error = attempt.err().context("the connection succeeded")?;
    ensure!(
        tcp::error_kind(&error) == Some(io::ErrorKind::TimedOut),
        "expected no answer: {error:#}"
    );
    Ok(())
}

fn wait_for_flows(lab: &Lab, expected: usize) -> Result<()> {
    let flows = || anyhow::Ok(lab.ask("status")?["flows"].as_u64());
    eventually(&format!("{expected} flows are left"), || {
        Ok((flows()? == Some(expected as u64)).then_some(()))
    })
    .with_context(|| format!("there are {:?}", flows().ok().flatten()))
}
