//! Echo requests, which the fallback handles. Their identifier is translated like a port.

use anyhow::{Context as _, Result, ensure};
use egress_common::{
    NatRange, Outcome, Port,
    Side::{Cluster, Egress},
};
use egress_tests::skip_unless_lab_works;

use crate::{
    bench::{Bench, FAMILIES, LOCAL_PORTS, Setup, for_each_family},
    frames::{Message, Transport, assert_same, echo_request, endpoints, icmp, tcp},
};

const WITH_FALLBACK: Setup = Setup {
    max_flows: 1024,
    nat_range: NatRange::without(LOCAL_PORTS),
    fallback: true,
    kernel_expiry: false,
};

#[test]
fn a_request_goes_to_the_fallback_and_its_reply_to_the_client() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    let range = NatRange::without(LOCAL_PORTS);
    for family in &FAMILIES {
        // Identifiers that are preserved, and others that are not.
        for identifier in [2000, 65_535, 0, 1, 1023, 40_000] {
            let request = echo_request(family.client, family.router, identifier);
            let out = bench.forward(Cluster, &request.bytes())?;
            let (reserved, server) = endpoints(&out)?;
            assert_same(&out, &request.translated(reserved, server))?;
            ensure!(reserved.0 == family.reserved && server == (family.fallback, 0));
            ensure!(range.contains(Port::new(reserved.1)), "{reserved:?}");
            ensure!((reserved.1 == identifier) == range.contains(Port::new(identifier)));

            let reply = request
                .between(reserved, server)
                .answer(Transport::EchoReply, b"I am");
            let out = bench
                .forward(Egress, &reply.bytes())
                .with_context(|| format!("the reply to {identifier}"))?;
            assert_same(&out, &reply.translated(request.destination, request.source))?;
        }
    }
    Ok(())
}

#[test]
fn requests_of_every_size_have_right_checksums() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        for len in [0, 1, 2, 3, 56, 1399, 1400, 2801] {
            let request =
                echo_request(family.client, family.router, 40_000).payload(&vec![0xab; len]);
            let out = bench.forward(Cluster, &request.bytes())?;
            let (reserved, server) = endpoints(&out)?;
            assert_same(&out, &request.translated(reserved, server))
                .with_context(|| format!("{len} bytes"))?;
        }
    }
    Ok(())
}

#[test]
fn two_clients_with_one_identifier_are_told_apart() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(WITH_FALLBACK, |bench, family| {
        let clients = [(family.client, 2000), (family.outsider, 2000)];
        let mut seen = Vec::new();
        for (client, identifier) in clients {
            let request = echo_request(client, family.router, identifier);
            seen.push(endpoints(&bench.forward(Cluster, &request.bytes())?)?);
        }
        ensure!(seen[0] != seen[1], "{seen:?}");
        for ((reserved, server), client) in seen.into_iter().zip(clients) {
            let reply = tcp(server, reserved, "").transport(Transport::EchoReply);
            let out = bench.forward(Egress, &reply.bytes())?;
            assert_same(&out, &reply.translated((family.router, 0), client))?;
        }
        ensure!(bench.flows().len() == 2);
        Ok(())
    })
}

#[test]
fn the_requests_of_one_ping_are_one_flow() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(WITH_FALLBACK, |bench, family| {
        let request = echo_request(family.client, family.router, 2000);
        for _ in 0..3 {
            bench.forward(Cluster, &request.bytes())?;
        }
        ensure!(bench.flow()?.state == "UNREPLIED");
        let reply =
            tcp((family.fallback, 0), (family.reserved, 2000), "").transport(Transport::EchoReply);
        bench.forward(Egress, &reply.bytes())?;
        let flow = bench.flow()?;
        ensure!(
            (flow.state, flow.original.packets, flow.reply.packets) == ("REPLIED", 3, 1),
            "{flow:?}"
        );
        Ok(())
    })
}

#[test]
fn without_a_fallback_the_router_itself_answers() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        let request = echo_request(family.client, family.router, 2000);
        bench.refuse(Cluster, &request.bytes(), Outcome::NoRule)?;
    }
    ensure!(bench.entries() == 0);
    Ok(())
}

#[test]
fn a_reply_that_nobody_asked_for_opens_nothing_and_enters_nowhere() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(WITH_FALLBACK, |bench, family| {
        let request = echo_request(family.client, family.router, 2000);
        bench.forward(Cluster, &request.bytes())?;
        let (reserved, server) = ((family.reserved, 2000), (family.fallback, 0));
        let reply = tcp(server, reserved, "").transport(Transport::EchoReply);
        for (source, destination, outcome) in [
            (server, (family.reserved, 2001), Outcome::EgressOwn),
            ((family.outsider, 0), reserved, Outcome::EgressOwn),
            (server, (family.router, 2000), Outcome::NotForEgress),
            (server, (family.client, 2000), Outcome::NotForEgress),
        ] {
            let forged = reply.between(source, destination);
            bench.refuse(Egress, &forged.bytes(), outcome)?;
        }
        // A client's reply to a ping from the pod itself.
        let own = reply.between((family.client, 0), (family.router, 2000));
        bench.refuse(Cluster, &own.bytes(), Outcome::NotAnOpening)?;
        ensure!(bench.flow()?.reply.packets == 0);
        Ok(())
    })
}

#[test]
fn a_request_from_the_external_network_is_for_the_router_itself() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(WITH_FALLBACK, |bench, family| {
        let ping = echo_request(family.client, family.router, 2000);
        bench.forward(Cluster, &ping.bytes())?;
        for (source, destination, outcome) in [
            (family.outsider, family.reserved, Outcome::EgressOwn),
            (family.fallback, family.reserved, Outcome::EgressOwn),
            (family.outsider, family.router, Outcome::NotForEgress),
            (family.client, family.router, Outcome::NotForEgress),
        ] {
            let request = echo_request(source, destination, 2000);
            bench.refuse(Egress, &request.bytes(), outcome)?;
        }
        Ok(())
    })
}

#[test]
fn other_icmp_queries_are_left_to_the_stack() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        // Timestamp and address mask (RFC 792, RFC 950); listener reports and node information (RFC 2710, RFC 4620).
        let kinds = if family.client.is_ipv4() {
            [13, 17]
        } else {
            [131, 139]
        };
        for kind in kinds {
            let message = Message {
                kind,
                code: 0,
                rest: [0; 4],
            };
            let question = icmp(family.client, family.router, message, &[0; 12]);
            bench.refuse(Cluster, &question.bytes(), Outcome::OtherProtocol)?;
        }
    }
    Ok(())
}
