//! The life of flows.

use anyhow::{Result, ensure};
use egress_common::{
    Outcome,
    Side::{self, Cluster, Egress},
    Timeouts,
};
use egress_tests::skip_unless_lab_works;
use egress_userspace::{
    dataplane::{Swept, sweep},
    kernel,
};

use crate::{
    bench::{Bench, DROP, Family, Setup, for_each_family},
    frames::{endpoints, tcp, udp},
};

/// Segments of both directions, in turn; gives the connection's state after each.
fn exchange(
    bench: &mut Bench,
    family: &Family,
    segments: &[(Side, &'static str)],
) -> Result<Vec<&'static str>> {
    let (client, service) = ((family.client, 2000), (family.router, 8080));
    let mut outside = None;
    let mut states = Vec::new();
    for (side, flags) in segments {
        let out = match side {
            Cluster => bench.forward(Cluster, &tcp(client, service, flags).bytes())?,
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
    for_each_family(Setup::default(), |bench, family| {
        let states = exchange(
            bench,
            family,
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
    })
}

#[test]
fn both_directions_are_counted_apart() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        exchange(
            bench,
            family,
            &[
                (Cluster, "S"),
                (Egress, "SA"),
                (Cluster, "A"),
                (Egress, "A"),
                (Egress, "A"),
            ],
        )?;
        // From the IP header on.
        let segment = if family.client.is_ipv4() { 40 } else { 60 };
        let flow = bench.flow()?;
        ensure!(
            (flow.original.packets, flow.original.bytes) == (2, 2 * segment),
            "{flow:?}"
        );
        ensure!(
            (flow.reply.packets, flow.reply.bytes) == (3, 3 * segment),
            "{flow:?}"
        );
        let rule = bench.rule(family.web_rule)?;
        ensure!(
            (rule.original, rule.reply) == (flow.original, flow.reply),
            "{rule:?}"
        );
        Ok(())
    })
}

#[test]
fn a_syn_on_the_tuple_of_a_closed_connection_opens_a_new_one() -> Result<()> {
    skip_unless_lab_works!();
    for end in [
        &[(Cluster, "FA"), (Egress, "FA")][..],
        &[(Egress, "R")],
        &[(Cluster, "RA")],
    ] {
        for_each_family(Setup::default(), |bench, family| {
            let open = [(Cluster, "S"), (Egress, "SA"), (Cluster, "A")];
            exchange(bench, family, &[&open, end].concat())?;
            exchange(bench, family, &[(Cluster, "S")])?;
            let flow = bench.flow()?;
            ensure!(
                (flow.state, flow.original.packets, flow.reply.packets) == ("SYN_SENT", 1, 0),
                "after {end:?}: {flow:?}"
            );
            ensure!(bench.entries() == 2);
            ensure!(bench.rule(family.web_rule)?.flows == 2);
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn a_repeated_syn_belongs_to_the_connection_that_it_asked_for() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        let syn = tcp((family.client, 40_000), (family.router, 8080), "S").bytes();
        let first = bench.forward(Cluster, &syn)?;
        let second = bench.forward(Cluster, &syn)?;
        ensure!(first == second, "the port has changed");
        ensure!(bench.flow()?.original.packets == 2);
        Ok(())
    })
}

#[test]
fn a_full_table_refuses_new_flows_and_keeps_those_in_it() -> Result<()> {
    skip_unless_lab_works!();
    const FLOWS: u16 = 16;
    let setup = Setup {
        max_flows: FLOWS.into(),
        ..Setup::default()
    };
    for_each_family(setup, |bench, family| {
        let datagram = |port| udp((family.client, port), (family.router, 80), b"").bytes();
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
    })
}

/// Sweeps the flows of the family, some seconds from now.
fn sweep_in(bench: &mut Bench, family: &Family, seconds: u64) -> Result<Swept> {
    let timeouts = Timeouts::default();
    let now_ns = kernel::monotonic_ns() + seconds * 1_000_000_000;
    let maps = &mut bench.dataplane.maps;
    Ok(if family.client.is_ipv4() {
        sweep(&mut maps.v4, &timeouts, now_ns)?
    } else {
        sweep(&mut maps.v6, &timeouts, now_ns)?
    })
}

#[test]
fn a_sweep_ends_idle_flows_with_both_entries_and_no_others() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        exchange(
            bench,
            family,
            &[(Cluster, "S"), (Egress, "SA"), (Cluster, "A")],
        )?;
        for port in 3000..3010 {
            let datagram = udp((family.client, port), (family.router, 80), b"");
            bench.forward(Cluster, &datagram.bytes())?;
        }
        let swept = sweep_in(bench, family, 29)?;
        ensure!((swept.live, swept.ended) == (11, 0), "{swept:?}");
        let swept = sweep_in(bench, family, 32)?;
        ensure!((swept.live, swept.ended) == (1, 10), "{swept:?}");
        ensure!(bench.entries() == 2 && bench.flow()?.state == "ESTABLISHED");
        sweep_in(bench, family, 5 * 24 * 3600 + 2)?;
        ensure!(bench.entries() == 0);
        Ok(())
    })
}
