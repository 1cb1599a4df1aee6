//! NAT ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use egress_common::{Address, NatRange, Outcome, Port, Side};
use egress_tests::{PATIENCE, skip_unless_lab_works};
use egress_userspace::dataplane::{FamilyMaps, PROGRAMS};

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

/// The server may remember the old connection (TIME-WAIT). From another client's port it would take new segments for
/// old ones.
#[test]
fn a_connection_that_is_opened_anew_keeps_its_port() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        // Outside the NAT range, so that the NAT port is chosen at random.
        let (client, service) = ((family.client, LOCAL_PORTS.0), (family.router, 8080));
        let mut before = None;
        for _ in 0..8 {
            let out = bench.forward(Side::Cluster, &tcp(client, service, "S").bytes())?;
            let (reserved, server) = endpoints(&out)?;
            ensure!(
                *before.get_or_insert(reserved) == reserved,
                "{before:?} became {reserved:?}"
            );
            for (side, flags) in [
                (Side::Egress, "SA"),
                (Side::Cluster, "A"),
                (Side::Egress, "FA"),
                (Side::Cluster, "FA"),
            ] {
                let segment = match side {
                    Side::Cluster => tcp(client, service, flags),
                    Side::Egress => tcp(server, reserved, flags),
                };
                bench.forward(side, &segment.bytes())?;
            }
            ensure!(bench.entries() == 2);
        }
        Ok(())
    })
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
                "{reserved:?} is allocated twice"
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

/// A NAT range of ten ports: 65526 to 65535.
fn ten_ports() -> Setup {
    Setup {
        nat_range: NatRange::without((1, 65_525)),
        ..Setup::default()
    }
}

#[test]
fn when_the_range_is_used_up_a_flow_is_refused_and_counted() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(ten_ports(), |bench, family| {
        let range = NatRange::without((1, 65_525));
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

#[test]
fn a_port_that_becomes_free_again_is_found_soon() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(ten_ports(), |bench, family| {
        let datagram = |last| udp((client(family, last), 5000), (family.router, 80), b"").bytes();
        for last in 1..=10 {
            bench.forward(Side::Cluster, &datagram(last))?;
        }
        bench.refuse(Side::Cluster, &datagram(11), Outcome::NoFreePort)?;
        let maps = &mut bench.dataplane.maps;
        end_all_flows(&mut maps.v4)?;
        end_all_flows(&mut maps.v6)?;
        // After a failed search, no other starts for a while.
        let deadline = Instant::now() + PATIENCE;
        while bench.run(Side::Cluster, &datagram(11))?.verdict != FORWARD {
            ensure!(Instant::now() < deadline, "the free port is not found");
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    })
}

fn end_all_flows<A: Address>(maps: &mut FamilyMaps<A>) -> Result<()> {
    let keys: Vec<_> = maps.flows.keys().flatten().collect();
    for key in keys {
        maps.flows.remove(&key)?;
    }
    Ok(())
}

#[test]
fn every_port_of_the_range_is_used_before_a_flow_is_refused() -> Result<()> {
    skip_unless_lab_works!();
    let setup = Setup {
        max_flows: 65_536,
        ..Setup::default()
    };
    let range = NatRange::without(LOCAL_PORTS);
    for_each_family(setup, |bench, family| {
        let mut used = BTreeSet::new();
        // From client ports that cannot be preserved, of as many clients as necessary.
        let clients = (1..=2).flat_map(|last| (32_768..=60_999).map(move |port| (last, port)));
        for (last, port) in clients {
            let datagram = udp((client(family, last), port), (family.router, 80), b"");
            let ran = bench.run(Side::Cluster, &datagram.bytes())?;
            if ran.verdict != FORWARD {
                break;
            }
            let ((_, nat_port), _) = endpoints(&ran.frame)?;
            ensure!(
                range.contains(Port::new(nat_port)) && used.insert(nat_port),
                "{nat_port} is allocated twice or out of the range"
            );
        }
        ensure!(
            used.len() == range.len() as usize && bench.count(Outcome::NoFreePort)? == 1,
            "{} of {} ports were used",
            used.len(),
            range.len()
        );
        Ok(())
    })
}

#[test]
fn clients_on_all_cpus_never_share_a_port() -> Result<()> {
    skip_unless_lab_works!();
    const THREADS: u8 = 8;
    // 2,000 ports for more flows than that.
    let range = NatRange::without((1, 63_535));
    let setup = Setup {
        max_flows: 8192,
        nat_range: range,
        ..Setup::default()
    };
    for_each_family(setup, |bench, family| {
        let program: &SchedClassifier = bench.dataplane.program(PROGRAMS[0])?;
        let start = Barrier::new(THREADS.into());
        let open = |last: u8| -> Result<Vec<u16>> {
            start.wait();
            let mut ports = Vec::new();
            for port in 5000..5400 {
                let datagram = udp((client(family, last), port), (family.router, 80), b"").bytes();
                let mut out = vec![0; datagram.len()];
                let ran = program.test_run(TestRunOptions {
                    data_in: Some(&datagram),
                    data_out: Some(&mut out),
                    ..TestRunOptions::default()
                })?;
                if ran.return_value.cast_signed() == FORWARD {
                    let ((_, nat_port), _) = endpoints(&out)?;
                    ports.push(nat_port);
                }
            }
            Ok(ports)
        };
        let ports = thread::scope(|scope| {
            let threads: Vec<_> = (1..=THREADS)
                .map(|last| {
                    let open = &open;
                    scope.spawn(move || open(last))
                })
                .collect();
            threads
                .into_iter()
                .map(|thread| thread.join().expect("the thread does not panic"))
                .collect::<Result<Vec<_>>>()
        })?
        .concat();
        let distinct: BTreeSet<_> = ports.iter().collect();
        ensure!(distinct.len() == ports.len(), "a port is allocated twice");
        ensure!(
            distinct.len() == range.len() as usize,
            "{} of {} ports were used",
            distinct.len(),
            range.len()
        );
        ensure!(bench.entries() == 2 * ports.len());
        Ok(())
    })
}
