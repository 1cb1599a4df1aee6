//! Time to live, and hop limit.

use anyhow::{Context as _, Result, ensure};
use egress_common::{
    Outcome,
    Side::{Cluster, Egress},
};
use egress_tests::skip_unless_lab_works;

use crate::{
    bench::{Bench, FAMILIES},
    frames::{Message, assert_same, chunk, endpoints, icmp, tcp},
};

#[test]
fn a_hop_is_taken_from_every_packet_that_is_forwarded() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        for (request, answer) in family.openings() {
            for ttl in [2, 3, 64, 128, 255] {
                let request = request.clone().ttl(ttl);
                let out = bench.forward(Cluster, &request.bytes())?;
                let (reserved, server) = endpoints(&out)?;
                let expected = request.translated(reserved, server);
                ensure!(expected.ttl == ttl - 1);
                assert_same(&out, &expected)?;

                let chunks = chunk(0, b"answer");
                let answer = request.between(reserved, server).answer(answer, &chunks);
                let out = bench.forward(Egress, &answer.bytes())?;
                assert_same(
                    &out,
                    &answer.translated(request.destination, request.source),
                )?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_packet_whose_hops_have_run_out_goes_no_further() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        for (request, answer) in family.openings() {
            for ttl in [1, 0] {
                let expired = request.clone().ttl(ttl);
                bench
                    .refuse(Cluster, &expired.bytes(), Outcome::TtlExceeded)
                    .context("before any other packet of the flow")?;
            }
            let (reserved, server) = endpoints(&bench.forward(Cluster, &request.bytes())?)?;
            let answer = request.between(reserved, server).answer(answer, &[0; 8]);
            for ttl in [1, 0] {
                let expired = request.clone().ttl(ttl);
                bench.refuse(Cluster, &expired.bytes(), Outcome::TtlExceeded)?;
                let expired = answer.clone().ttl(ttl);
                bench.refuse(Egress, &expired.bytes(), Outcome::TtlExceeded)?;
            }
        }
    }
    Ok(())
}

#[test]
fn an_error_whose_hops_have_run_out_goes_no_further() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        let unreachable = Message {
            kind: if family.client.is_ipv4() { 3 } else { 1 },
            code: 1,
            rest: [0; 4],
        };
        for (request, _) in family.openings() {
            let (reserved, server) = endpoints(&bench.forward(Cluster, &request.bytes())?)?;
            let inside = request.between(reserved, server).packet();
            let error = icmp(family.outsider, family.reserved, unreachable, &inside);
            for ttl in [1, 0] {
                let expired = error.clone().ttl(ttl);
                bench.refuse(Egress, &expired.bytes(), Outcome::TtlExceeded)?;
            }
            let out = bench.forward(Egress, &error.ttl(2).bytes())?;
            let ttl = if family.client.is_ipv4() { 22 } else { 21 };
            ensure!(out[ttl] == 1);
        }
    }
    Ok(())
}

#[test]
fn what_is_for_the_pod_itself_needs_no_more_hops() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in &FAMILIES {
        for ttl in [1, 0] {
            let own = tcp((family.client, 2000), (family.router, 9090), "S").ttl(ttl);
            bench.refuse(Cluster, &own.bytes(), Outcome::NoRule)?;
            let own = tcp((family.outsider, 2000), (family.reserved, 2000), "SA").ttl(ttl);
            bench.refuse(Egress, &own.bytes(), Outcome::EgressOwn)?;
        }
    }
    Ok(())
}
