//! NAT ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use anyhow::{Result, ensure};
use egress_common::{NatRange, Outcome, PORT_ATTEMPTS, Port, Side};
use egress_tests::skip_unless_lab_works;

use crate::{
    bench::{Bench, DROP, FAMILIES, FORWARD, Family, LOCAL_PORTS, Setup, for_each_family},
    frames::{chunk, endpoints, sctp, tcp, udp},
};

/// One of many clients.
fn client(family: &Family, last: u8) -> IpAddr {
    match family.client {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            [a, b, c + 1, last].into()
        }
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[15] = last;
            octets[7] += 1;
            octets.into()
        }
    }
}

#[test]
fn a_clients_own_port_is_kept_where_it_can_be() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let range = NatRange::without(LOCAL_PORTS);
    for family in &FAMILIES {
        for port in [1, 1023, 1024, 32_767, 32_768, 60_999, 61_000, 65_535] {
            let syn = tcp((family.client, port), (family.router, 8080), "S");
            let out = bench.forward(Side::Cluster, &syn.bytes())?;
            let ((address, nat_port), _) = endpoints(&out)?;
            ensure!(
                address == family.reserved && range.contains(Port::new(nat_port)),
                "{port} became {nat_port}"
            );
            ensure!(
                (nat_port == port) == range.contains(Port::new(port)),
                "{port} became {nat_port}"
            );
        }
    }
    Ok(())
}

#[test]
fn clients_with_one_source_port_get_ports_of_their_own_and_their_own_answers() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let service = (family.router, 8080);
        let mut clients = BTreeMap::new();
        for last in 1..=100 {
            let client = (client(family, last), 5000);
            let out = bench.forward(Side::Cluster, &tcp(client, service, "S").bytes())?;
            let (reserved, server) = endpoints(&out)?;
            ensure!(
                clients.insert((reserved, server), client).is_none(),
                "{reserved:?} is used twice"
            );
        }
        for ((reserved, server), client) in clients {
            let out = bench.forward(Side::Egress, &tcp(server, reserved, "SA").bytes())?;
            ensure!(endpoints(&out)? == (service, client));
        }
    }
    Ok(())
}

#[test]
fn one_port_serves_several_servers_and_protocols() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let client = (family.client, 2000);
        for frame in [
            tcp(client, (family.router, 8080), "S"),
            tcp(client, (family.router, 8443), "S"),
            udp(client, (family.router, 80), b""),
            sctp(client, (family.router, 5000), &chunk(1, &[0; 16])),
        ] {
            let out = bench.forward(Side::Cluster, &frame.bytes())?;
            let ((_, nat_port), _) = endpoints(&out)?;
            ensure!(nat_port == 2000, "{nat_port}");
        }
    }
    Ok(())
}

#[test]
fn when_the_range_is_used_up_a_flow_is_refused_and_counted() -> Result<()> {
    skip_unless_lab_works!();
    // Ten ports, 65526 to 65535: fewer than are tried.
    let range = NatRange::without((1, 65_525));
    ensure!(range.len() == 10 && range.len() < PORT_ATTEMPTS);
    let setup = Setup {
        nat_range: range,
        ..Setup::default()
    };
    for_each_family(setup, |bench, family| {
        let mut used = BTreeSet::new();
        for last in 1..=12 {
            let datagram = udp((client(family, last), 5000), (family.router, 80), b"");
            let ran = bench.run(Side::Cluster, &datagram.bytes())?;
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
        let syn = tcp((family.client, 5000), (family.router, 8080), "S");
        bench.forward(Side::Cluster, &syn.bytes())?;
        Ok(())
    })
}
