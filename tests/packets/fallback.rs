//! The fallback: the server for every port without a rule.

use std::{
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use bytemuck::Zeroable;
use egress_common::{
    Outcome,
    Side::{Cluster, Egress},
};
use egress_tests::{Namespace, PATIENCE, skip_unless_lab_works};
use socket2::{Domain, Socket, Type};

use crate::{
    bench::{Bench, FALLBACK_RULE, FAMILIES, FORWARD, Family, V4, V6},
    frames::{Frame, Transport, assert_same, chunk, echo_request, endpoints, sctp, tcp, udp},
};

/// A client's first packet to this port of the router, of every protocol with ports.
fn requests(family: &Family, port: u16) -> [Frame; 3] {
    let (client, service) = ((family.client, 2000), (family.router, port));
    [
        tcp(client, service, "S"),
        udp(client, service, b"question"),
        sctp(client, service, &chunk(1, &[1; 16])),
    ]
}

/// A namespace whose sockets can use the addresses of the router and of a client. The packets of a bench in it arrive
/// on its loopback interface.
fn pod() -> Result<Namespace> {
    let pod = Namespace::new("router")?;
    for family in FAMILIES {
        let (width, flags) = if family.client.is_ipv4() {
            (32, "")
        } else {
            (128, "nodad")
        };
        pod.ip([family.router, family.client]
            .map(|address| format!("addr add {address}/{width} dev lo {flags}")))?;
    }
    Ok(pod)
}

/// Runs a test on a bench with a fallback, in a namespace without sockets of other processes.
fn in_a_pod(test: impl FnOnce(&mut Bench) -> Result<()> + Send) -> Result<()> {
    pod()?.run(|| test(&mut Bench::with_fallback()?))
}

#[test]
fn a_port_without_a_rule_goes_to_the_fallback_on_the_same_port() -> Result<()> {
    skip_unless_lab_works!();
    in_a_pod(|bench| {
        for family in &FAMILIES {
            for port in [1, 22, 9090, 65_535] {
                for request in requests(family, port) {
                    let (reserved, server) = ((family.reserved, 2000), (family.fallback, port));
                    let out = bench.forward(Cluster, &request.bytes())?;
                    assert_same(&out, &request.translated(reserved, server))?;

                    let back = request.between(server, reserved);
                    let out = bench.forward(Egress, &back.bytes())?;
                    assert_same(&out, &back.translated(request.destination, request.source))?;
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_rule_wins_over_the_fallback() -> Result<()> {
    skip_unless_lab_works!();
    in_a_pod(|bench| {
        for family in &FAMILIES {
            let [tcp, udp, sctp] = [8080, 80, 5000].map(|port| requests(family, port));
            for (request, server) in [
                (&tcp[0], family.web),
                (&udp[1], family.datagrams),
                (&sctp[2], family.associations),
            ] {
                let (_, to) = endpoints(&bench.forward(Cluster, &request.bytes())?)?;
                ensure!(to.0 == server, "{request:?} went to {to:?}");
            }
            // A rule for another protocol does not count.
            let (_, to) = endpoints(&bench.forward(Cluster, &udp[0].bytes())?)?;
            ensure!(to == (family.fallback, 80), "80/TCP went to {to:?}");
        }
        Ok(())
    })
}

#[test]
fn what_the_fallback_takes_is_counted_by_its_own_id() -> Result<()> {
    skip_unless_lab_works!();
    in_a_pod(|bench| {
        let mut bytes = 0;
        for family in &FAMILIES {
            let requests = requests(family, 9090);
            let ping = echo_request(family.client, family.router, 2000);
            for request in requests.iter().chain([&ping]) {
                bench.forward(Cluster, &request.bytes())?;
                bytes += request.packet().len() as u64;
            }
            let answer = udp((family.fallback, 9090), (family.reserved, 2000), b"");
            bench.forward(Egress, &answer.bytes())?;
        }
        let fallback = bench.rule(FALLBACK_RULE)?;
        ensure!(
            (fallback.flows, fallback.original.packets) == (8, 8),
            "{fallback:?}"
        );
        ensure!(
            (fallback.original.bytes, fallback.reply.packets) == (bytes, 2),
            "{fallback:?}"
        );
        for rule in 0..FALLBACK_RULE {
            ensure!(bench.rule(rule)?.flows == 0);
        }
        ensure!(bench.flows().iter().all(|flow| flow.rule == FALLBACK_RULE));
        Ok(())
    })
}

#[test]
fn the_fallback_of_one_family_takes_nothing_of_the_other() -> Result<()> {
    skip_unless_lab_works!();
    for (with, without) in [(V4, V6), (V6, V4)] {
        in_a_pod(|bench| {
            let mut config = bench.dataplane.maps.config()?;
            let set = usize::from(config.rules_in_force());
            if without.client.is_ipv4() {
                config.rule_sets[set].fallback_v4 = Zeroable::zeroed();
            } else {
                config.rule_sets[set].fallback_v6 = Zeroable::zeroed();
            }
            bench.dataplane.maps.set_config(&config)?;
            for request in requests(&with, 9090) {
                bench.forward(Cluster, &request.bytes())?;
            }
            let requests = requests(&without, 9090);
            let (associations, others): (Vec<_>, Vec<_>) = requests
                .into_iter()
                .partition(|request| request.transport == Transport::Sctp);
            for request in others {
                bench.refuse(Cluster, &request.bytes(), Outcome::NoRule)?;
            }
            for request in &associations {
                bench.run(Cluster, &request.bytes())?;
            }
            let refused = bench.count(Outcome::SctpRefused)?;
            ensure!(
                refused == u64::try_from(associations.len())?,
                "{refused} were refused"
            );
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn the_fallback_takes_no_packet_that_can_start_nothing_or_is_for_somebody_else() -> Result<()> {
    skip_unless_lab_works!();
    in_a_pod(|bench| {
        for family in &FAMILIES {
            let (client, service) = ((family.client, 2000), (family.router, 9090));
            for flags in ["SA", "FA", "R", "RA"] {
                let late = tcp(client, service, flags);
                bench.refuse(Cluster, &late.bytes(), Outcome::NotAnOpening)?;
            }
            let abort = sctp(client, service, &chunk(6, &[]));
            bench.refuse(Cluster, &abort.bytes(), Outcome::NotAnOpening)?;
            for request in requests(family, 9090) {
                let elsewhere = request.between(client, (family.outsider, 9090));
                bench.refuse(Cluster, &elsewhere.bytes(), Outcome::NotForRouter)?;
            }
        }
        ensure!(bench.entries() == 0);
        Ok(())
    })
}

fn refuse_all(bench: &mut Bench, requests: &[&Frame]) -> Result<()> {
    for request in requests {
        bench
            .refuse(Cluster, &request.bytes(), Outcome::NoRule)
            .with_context(|| format!("{request:?}"))?;
    }
    Ok(())
}

#[test]
fn a_port_that_the_pod_itself_serves_is_left_alone_while_it_does() -> Result<()> {
    skip_unless_lab_works!();
    pod()?.run(|| {
        for family in &FAMILIES {
            let mut bench = Bench::with_fallback()?;
            let listener = TcpListener::bind((family.router, 9090))?;
            let receiver = UdpSocket::bind((family.router, 9091))?;
            let [connection, ..] = &requests(family, 9090);
            let [_, datagram, _] = &requests(family, 9091);
            refuse_all(&mut bench, &[connection, datagram])?;
            ensure!(bench.entries() == 0);
            // The same ports of the other protocols, and other ports.
            for request in [
                &requests(family, 9090)[1..],
                &requests(family, 9091)[..1],
                &requests(family, 9092),
            ]
            .concat()
            {
                bench.forward(Cluster, &request.bytes())?;
            }
            drop((listener, receiver));
            // A process that another test has just forked keeps the sockets open until its `exec`.
            for frame in [connection, datagram] {
                let deadline = Instant::now() + PATIENCE;
                while bench.run(Cluster, &frame.bytes())?.verdict != FORWARD {
                    ensure!(Instant::now() < deadline, "{frame:?} is the pod's own");
                    thread::sleep(Duration::from_millis(1));
                }
            }
        }
        Ok(())
    })
}

#[test]
fn a_port_that_the_pod_serves_on_every_address_is_left_alone() -> Result<()> {
    skip_unless_lab_works!();
    in_a_pod(|bench| {
        // Both families on one socket, like servers of health checks.
        let everywhere: SocketAddr = "[::]:9090".parse()?;
        let sockets = [Type::STREAM, Type::DGRAM].map(|kind| Socket::new(Domain::IPV6, kind, None));
        for socket in sockets.iter().flatten() {
            socket.set_only_v6(false)?;
            socket.bind(&everywhere.into())?;
        }
        let [listener, receiver] = sockets;
        let (listener, _receiver) = (listener?, receiver?);
        listener.listen(1)?;
        for family in &FAMILIES {
            let [connection, datagram, association] = &requests(family, 9090);
            refuse_all(bench, &[connection, datagram])?;
            bench.forward(Cluster, &association.bytes())?;
        }
        Ok(())
    })
}

#[test]
fn a_connection_that_the_pod_itself_has_opened_is_left_alone() -> Result<()> {
    skip_unless_lab_works!();
    in_a_pod(|bench| {
        for family in &FAMILIES {
            let server = TcpListener::bind((family.client, 0))?;
            let socket = Socket::new(
                Domain::for_address(server.local_addr()?),
                Type::STREAM,
                None,
            )?;
            socket.bind(&SocketAddr::new(family.router, 0).into())?;
            socket.connect(&server.local_addr()?.into())?;
            let connection = TcpStream::from(socket);
            let (there, here) = (connection.peer_addr()?, connection.local_addr()?);
            let (there, here) = ((there.ip(), there.port()), (here.ip(), here.port()));
            for flags in ["A", "PA", "FA", "R"] {
                refuse_all(bench, &[&tcp(there, here, flags)])?;
            }
            // The same port towards another client belongs to no connection.
            let other = tcp((family.outsider, 2000), here, "A");
            bench.forward(Cluster, &other.bytes())?;

            let asking = UdpSocket::bind((family.router, 0))?;
            asking.connect((family.client, 53))?;
            let here = (family.router, asking.local_addr()?.port());
            refuse_all(bench, &[&udp((family.client, 53), here, b"answer")])?;
            let other = udp((family.client, 54), here, b"no answer");
            bench.forward(Cluster, &other.bytes())?;
        }
        Ok(())
    })
}

/// A rule is what the user asked for; the pod's own sockets use other ports.
#[test]
fn a_rule_wins_over_a_socket_of_the_pod() -> Result<()> {
    skip_unless_lab_works!();
    in_a_pod(|bench| {
        for family in &FAMILIES {
            let _listener = TcpListener::bind((family.router, 8080))?;
            let [connection, ..] = requests(family, 8080);
            let (_, server) = endpoints(&bench.forward(Cluster, &connection.bytes())?)?;
            ensure!(server == (family.web, 80), "{server:?}");
        }
        Ok(())
    })
}
