//! The life of flows.

use anyhow::{Result, ensure};
use egress_common::{
    NatRange, Outcome,
    Side::{self, Cluster, Egress},
    Timeouts,
};
use egress_tests::skip_unless_lab_works;
use egress_userspace::{dataplane::sweep, kernel};

use crate::{
    bench::{Bench, CLIENT, DROP, LOCAL_PORTS, ROUTER},
    frames::{Endpoint, endpoints, tcp, udp},
};

const SERVICE: Endpoint = (ROUTER, 8080);
const SOURCE: Endpoint = (CLIENT, 2000);

/// Segments of both directions, in turn; gives the connection's state after each.
fn exchange(bench: &mut Bench, segments: &[(Side, &'static str)]) -> Result<Vec<&'static str>> {
    let mut outside = None;
    let mut states = Vec::new();
    for (side, flags) in segments {
        let out = match side {
            Cluster => bench.forward(Cluster, &tcp(SOURCE, SERVICE, flags).bytes())?,
            Egress => {
                let (reserved, server) = outside.expect("the client comes first");
                bench.forward(Egress, &tcp(server, reserved, flags).bytes())?
            }
        };
        if *side == Cluster {
            outside = Some(endpoints(&out)?);
        }
        states.push(bench.flow()?.state);
    }
    Ok(states)
}

#[test]
fn a_connection_shows_its_states() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let states = exchange(
        &mut bench,
        &[
            (Cluster, "S"),
            (Egress, "SA"),
            (Cluster, "A"),
            (Egress, "PA"),
            (Cluster, "FA"),
            (Egress, "FA"),
            (Cluster, "A"),
        ],
    )?;
    ensure!(
        states
            == [
                "SYN_SENT",
                "SYN_RECV",
                "ESTABLISHED",
                "ESTABLISHED",
                "FIN_WAIT",
                "TIME_WAIT",
                "TIME_WAIT"
            ],
        "{states:?}"
    );
    Ok(())
}

#[test]
fn both_directions_are_counted_apart() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    exchange(
        &mut bench,
        &[
            (Cluster, "S"),
            (Egress, "SA"),
            (Cluster, "A"),
            (Egress, "A"),
            (Egress, "A"),
        ],
    )?;
    let flow = bench.flow()?;
    ensure!(
        (flow.original.packets, flow.original.bytes) == (2, 80),
        "{flow:?}"
    );
    ensure!(
        (flow.reply.packets, flow.reply.bytes) == (3, 120),
        "{flow:?}"
    );
    let rule = &bench.dataplane.maps.rules()?[1];
    ensure!(
        (rule.original, rule.reply) == (flow.original, flow.reply),
        "{rule:?}"
    );
    Ok(())
}

#[test]
fn a_syn_on_the_tuple_of_a_closed_connection_opens_a_new_one() -> Result<()> {
    skip_unless_lab_works!();
    for end in [
        &[(Cluster, "FA"), (Egress, "FA")][..],
        &[(Egress, "R")],
        &[(Cluster, "RA")],
    ] {
        let mut bench = Bench::new()?;
        exchange(
            &mut bench,
            &[(Cluster, "S"), (Egress, "SA"), (Cluster, "A")],
        )?;
        let (reserved, server) =
            endpoints(&bench.forward(Cluster, &tcp(SOURCE, SERVICE, "A").bytes())?)?;
        for (side, flags) in end {
            match side {
                Cluster => bench.forward(Cluster, &tcp(SOURCE, SERVICE, flags).bytes())?,
                Egress => bench.forward(Egress, &tcp(server, reserved, flags).bytes())?,
            };
        }
        bench.forward(Cluster, &tcp(SOURCE, SERVICE, "S").bytes())?;
        let flow = bench.flow()?;
        ensure!(
            (flow.state, flow.original.packets, flow.reply.packets) == ("SYN_SENT", 1, 0),
            "after {end:?}: {flow:?}"
        );
        ensure!(bench.entries() == 2);
        ensure!(bench.dataplane.maps.rules()?[1].flows == 2);
    }
    Ok(())
}

#[test]
fn a_repeated_syn_belongs_to_the_connection_that_it_asked_for() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let first = bench.forward(Cluster, &tcp((CLIENT, 40_000), SERVICE, "S").bytes())?;
    let second = bench.forward(Cluster, &tcp((CLIENT, 40_000), SERVICE, "S").bytes())?;
    ensure!(first == second, "the port has changed");
    ensure!(bench.flow()?.original.packets == 2);
    Ok(())
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_those_in_it() -> Result<()> {
    skip_unless_lab_works!();
    const FLOWS: u16 = 16;
    let mut bench = Bench::with(u32::from(FLOWS), NatRange::without(LOCAL_PORTS))?;
    let datagram = |port| udp((CLIENT, port), (ROUTER, 80), b"").bytes();
    let mut refused = 0;
    let mut admitted = Vec::new();
    for port in 2000..2000 + 2 * FLOWS {
        let ran = bench.run(Cluster, &datagram(port))?;
        if ran.verdict == DROP {
            refused += 1;
        } else {
            admitted.push(port);
        }
    }
    // The kernel may keep a spare element for each CPU beyond the table's size.
    ensure!(
        admitted.len() >= usize::from(FLOWS) && refused > 0,
        "{} admitted, {refused} refused",
        admitted.len()
    );
    ensure!(bench.count(Outcome::FlowTableFull)? == refused);
    ensure!(
        bench.entries() == 2 * admitted.len(),
        "an entry is without the other"
    );
    for port in admitted {
        bench.forward(Cluster, &datagram(port))?;
    }
    Ok(())
}

#[test]
fn a_sweep_ends_idle_flows_with_both_entries_and_no_others() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let timeouts = Timeouts::default();
    let in_seconds = |seconds: u64| kernel::monotonic_ns() + seconds * 1_000_000_000;
    exchange(
        &mut bench,
        &[(Cluster, "S"), (Egress, "SA"), (Cluster, "A")],
    )?;
    for port in 0..10 {
        bench.forward(
            Cluster,
            &udp((CLIENT, 3000 + port), (ROUTER, 80), b"").bytes(),
        )?;
    }
    let swept = sweep(&mut bench.dataplane.maps.v4, &timeouts, in_seconds(29))?;
    ensure!((swept.live, swept.ended) == (11, 0), "{swept:?}");
    let swept = sweep(&mut bench.dataplane.maps.v4, &timeouts, in_seconds(32))?;
    ensure!((swept.live, swept.ended) == (1, 10), "{swept:?}");
    ensure!(bench.entries() == 2 && bench.flow()?.state == "ESTABLISHED");
    sweep(
        &mut bench.dataplane.maps.v4,
        &timeouts,
        in_seconds(5 * 24 * 3600 + 2),
    )?;
    ensure!(bench.entries() == 0);
    Ok(())
}
