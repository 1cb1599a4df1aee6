//! NAT ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
};

use anyhow::{Result, ensure};
use egress_common::{NatRange, Outcome, PORT_ATTEMPTS, Port, Side};
use egress_tests::skip_unless_lab_works;

use crate::{
    bench::{Bench, CLIENT, DROP, FORWARD, LOCAL_PORTS, RESERVED, ROUTER},
    frames::{endpoints, tcp, udp},
};

#[test]
fn a_clients_own_port_is_kept_where_it_can_be() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let range = NatRange::without(LOCAL_PORTS);
    for port in [1, 1023, 1024, 32_767, 32_768, 60_999, 61_000, 65_535] {
        let out = bench.forward(
            Side::Cluster,
            &tcp((CLIENT, port), (ROUTER, 8080), "S").bytes(),
        )?;
        let ((address, nat_port), _) = endpoints(&out)?;
        ensure!(
            address == RESERVED && range.contains(Port::new(nat_port)),
            "{port} became {nat_port}"
        );
        ensure!(
            (nat_port == port) == range.contains(Port::new(port)),
            "{port} became {nat_port}"
        );
    }
    Ok(())
}

#[test]
fn clients_with_one_source_port_get_ports_of_their_own_and_their_own_answers() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let mut clients = BTreeMap::new();
    for last in 1..=100 {
        let client = (Ipv4Addr::new(10, 128, 1, last), 5000);
        let (reserved, server) =
            endpoints(&bench.forward(Side::Cluster, &tcp(client, (ROUTER, 8080), "S").bytes())?)?;
        ensure!(
            clients.insert((reserved, server), client).is_none(),
            "{reserved:?} is used twice"
        );
    }
    for ((reserved, server), client) in clients {
        let out = bench.forward(Side::Egress, &tcp(server, reserved, "SA").bytes())?;
        ensure!(endpoints(&out)? == ((ROUTER, 8080), client));
    }
    Ok(())
}

#[test]
fn one_port_serves_several_servers_and_protocols() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for frame in [
        tcp((CLIENT, 2000), (ROUTER, 8080), "S"),
        tcp((CLIENT, 2000), (ROUTER, 8443), "S"),
        udp((CLIENT, 2000), (ROUTER, 80), b""),
    ] {
        let ((_, nat_port), _) = endpoints(&bench.forward(Side::Cluster, &frame.bytes())?)?;
        ensure!(nat_port == 2000, "{nat_port}");
    }
    Ok(())
}

#[test]
fn when_the_range_is_used_up_a_flow_is_refused_and_counted() -> Result<()> {
    skip_unless_lab_works!();
    // Ten ports, 65526 to 65535: fewer than are tried.
    let range = NatRange::without((1, 65_525));
    ensure!(range.len() == 10 && range.len() < PORT_ATTEMPTS);
    let mut bench = Bench::with(1024, range)?;
    let mut used = BTreeSet::new();
    for last in 1..=12 {
        let ran = bench.run(
            Side::Cluster,
            &udp((Ipv4Addr::new(10, 128, 1, last), 5000), (ROUTER, 80), b"").bytes(),
        )?;
        match ran.verdict {
            FORWARD => {
                let ((_, nat_port), _) = endpoints(&ran.frame)?;
                ensure!(
                    range.contains(Port::new(nat_port)) && used.insert(nat_port),
                    "{nat_port}"
                );
            }
            verdict => ensure!(
                verdict == DROP && used.len() == 10,
                "client {last}: {verdict}"
            ),
        }
    }
    ensure!(used.len() == 10 && bench.count(Outcome::NoFreePort)? == 2);
    // Towards another server the same ports are free.
    bench.forward(
        Side::Cluster,
        &tcp((CLIENT, 5000), (ROUTER, 8080), "S").bytes(),
    )?;
    Ok(())
}
