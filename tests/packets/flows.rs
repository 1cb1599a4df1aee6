//! The life of flows.

use anyhow::{Result, ensure};
use egress_common::{
    Outcome,
    Side::{self, Cluster, Egress},
    Timeouts,
};
use egress_tests::skip_unless_lab_works;
use egress_userspace::{dataplane::Swept, net::kernel};

use crate::{
    bench::{Bench, DROP, Family, Setup, for_each_family},
    frames::{SEQUENCE, endpoints, tcp, udp},
};

/// The segments that open a connection.
const HANDSHAKE: [(Side, &str); 3] = [(Cluster, "S"), (Egress, "SA"), (Cluster, "A")];

/// Sends the segments in turn. Returns the connection's state after each.
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
                let (reserved, server) = outside.expect("the first segment comes from the client");
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
        // Lengths from the IP header on.
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
            exchange(bench, family, &[&HANDSHAKE[..], end].concat())?;
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
        ensure!(first == second, "the NAT port has changed");
        ensure!(bench.flow()?.original.packets == 2);
        Ok(())
    })
}

/// The size of a flow table. The kernel may have a few spare elements for each CPU.
const FLOWS: u16 = 16;

fn small() -> Setup {
    Setup {
        max_flows: FLOWS.into(),
        ..Setup::default()
    }
}

/// Opens a connection from this port, up to the acknowledged handshake. Returns `None` if the table is full.
fn connect(bench: &mut Bench, family: &Family, port: u16) -> Result<Option<()>> {
    let (client, service) = ((family.client, port), (family.router, 8080));
    let syn = bench.run(Cluster, &tcp(client, service, "S").bytes())?;
    if syn.verdict == DROP {
        return Ok(None);
    }
    let (reserved, server) = endpoints(&syn.frame)?;
    bench.forward(Egress, &tcp(server, reserved, "SA").bytes())?;
    bench.forward(Cluster, &tcp(client, service, "A").bytes())?;
    Ok(Some(()))
}

#[test]
fn a_table_full_of_connections_refuses_new_flows_and_keeps_those_in_it() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(small(), |bench, family| {
        let (mut admitted, mut refused) = (Vec::new(), 0);
        for port in 2000..2000 + 3 * FLOWS {
            match connect(bench, family, port)? {
                Some(()) => admitted.push(port),
                None => refused += 1,
            }
        }
        ensure!(
            admitted.len() >= usize::from(FLOWS) && refused > 0,
            "{} admitted, {refused} refused",
            admitted.len()
        );
        ensure!(bench.count(Outcome::FlowTableFull)? == refused);
        ensure!(bench.dataplane.maps.count_evicted()? == 0);
        ensure!(
            bench.entries() == 2 * admitted.len(),
            "a flow lacks one of its entries"
        );
        for port in admitted {
            let data = tcp((family.client, port), (family.router, 8080), "PA");
            bench.forward(Cluster, &data.bytes())?;
        }
        Ok(())
    })
}

#[test]
fn a_flood_of_new_flows_ends_those_that_were_only_begun_and_no_connection() -> Result<()> {
    skip_unless_lab_works!();
    for kernel_expiry in [false, true] {
        let setup = Setup {
            kernel_expiry: kernel_expiry && kernel::features()?.kernel_expiry,
            ..small()
        };
        for_each_family(setup, |bench, family| {
            let ports = 2000..2000 + FLOWS / 2;
            for port in ports.clone() {
                ensure!(connect(bench, family, port)?.is_some());
            }
            for port in 3000..4000 {
                let (service, datagrams) = ((family.router, 8080), (family.router, 80));
                let syn = tcp((family.client, port), service, "S");
                bench.forward(Cluster, &syn.bytes())?;
                let datagram = udp((family.client, port), datagrams, b"");
                bench.forward(Cluster, &datagram.bytes())?;
            }
            ensure!(bench.count(Outcome::FlowTableFull)? == 0);
            let evicted = bench.dataplane.maps.count_evicted()?;
            ensure!(evicted >= 2000 - u64::from(2 * FLOWS), "{evicted} evicted");
            ensure!(bench.entries().is_multiple_of(2));
            let connections = bench.flows();
            let connections = connections
                .iter()
                .filter(|flow| flow.state == "ESTABLISHED")
                .count();
            ensure!(connections == ports.len(), "{connections} are left");
            Ok(())
        })?;
    }
    Ok(())
}

#[test]
fn both_sides_may_open_a_connection_at_once() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        // The sequence of states in RFC 9293, figure 8.
        let states = exchange(
            bench,
            family,
            &[
                (Cluster, "S"),
                (Egress, "S"),
                (Cluster, "SA"),
                (Egress, "SA"),
            ],
        )?;
        ensure!(
            states == ["SYN_SENT", "SYN_RECV", "ESTABLISHED", "ESTABLISHED"],
            "{states:?}"
        );
        Ok(())
    })
}

#[test]
fn a_reset_or_close_that_no_end_has_sent_passes_and_changes_nothing() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        exchange(bench, family, &[&HANDSHAKE[..], &[(Egress, "PA")]].concat())?;
        let (client, service) = ((family.client, 2000), (family.router, 8080));
        let (reserved, server) = ((family.reserved, 2000), (family.web, 80));
        // Sequence numbers that are guessed, acknowledged before, or far ahead.
        for sequence in [
            0,
            SEQUENCE.wrapping_sub(1),
            SEQUENCE + (1 << 24),
            SEQUENCE ^ (1 << 31),
        ] {
            for flags in ["R", "RA", "FA"] {
                let forged = tcp(server, reserved, flags).sequence_or_tag(sequence);
                bench.forward(Egress, &forged.bytes())?;
                let forged = tcp(client, service, flags).sequence_or_tag(sequence);
                bench.forward(Cluster, &forged.bytes())?;
                let flow = bench.flow()?;
                ensure!(
                    flow.state == "ESTABLISHED",
                    "{flags} at {sequence:#x}: {flow:?}"
                );
            }
        }
        // Ahead of the last acknowledgment by what may be in flight.
        let reset = tcp(server, reserved, "R").sequence_or_tag(SEQUENCE + 100_000);
        bench.forward(Egress, &reset.bytes())?;
        ensure!(bench.flow()?.state == "CLOSE");
        Ok(())
    })
}

#[test]
fn two_forged_segments_reset_no_more_than_one() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        exchange(bench, family, &HANDSHAKE)?;
        let (reserved, server) = ((family.reserved, 2000), (family.web, 80));
        for flags in ["PA", "R"] {
            let forged = tcp(server, reserved, flags).sequence_or_tag(7_000);
            bench.forward(Egress, &forged.bytes())?;
        }
        ensure!(bench.flow()?.state == "ESTABLISHED");
        Ok(())
    })
}

#[test]
fn a_refusal_closes_a_connection_that_nothing_was_acknowledged_of() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        // The reset of a SYN has sequence number 0 (RFC 9293, section 3.10.7.1).
        let syn = tcp((family.client, 2000), (family.router, 8080), "S");
        let (reserved, server) = endpoints(&bench.forward(Cluster, &syn.bytes())?)?;
        bench.forward(
            Egress,
            &tcp(server, reserved, "RA").sequence_or_tag(0).bytes(),
        )?;
        ensure!(bench.flow()?.state == "CLOSE");
        Ok(())
    })
}

/// Sweeps the flows as if some seconds had passed.
fn sweep_in(bench: &mut Bench, seconds: u64) -> Result<Swept> {
    let timeouts = Timeouts::default();
    let now_ns = kernel::monotonic_ns() + seconds * 1_000_000_000;
    Ok(bench.dataplane.sweep(&timeouts, now_ns)?)
}

#[test]
fn a_sweep_ends_idle_flows_with_both_entries_and_no_others() -> Result<()> {
    skip_unless_lab_works!();
    for_each_family(Setup::default(), |bench, family| {
        exchange(bench, family, &HANDSHAKE)?;
        for port in 3000..3010 {
            let datagram = udp((family.client, port), (family.router, 80), b"");
            bench.forward(Cluster, &datagram.bytes())?;
        }
        let swept = sweep_in(bench, 29)?;
        ensure!((swept.live, swept.ended) == (11, 0), "{swept:?}");
        let swept = sweep_in(bench, 32)?;
        ensure!((swept.live, swept.ended) == (1, 10), "{swept:?}");
        ensure!(bench.entries() == 2 && bench.flow()?.state == "ESTABLISHED");
        sweep_in(bench, 5 * 24 * 3600 + 2)?;
        ensure!(bench.entries() == 0);
        Ok(())
    })
}
