//! Flow events reach subscribers, and nothing is recorded without one.

use anyhow::{Context as _, Result, ensure};
use egress_common::{
    Change, Outcome,
    Side::{Cluster, Egress},
    Subscriber, Timeouts,
};
use egress_tests::skip_unless_lab_works;
use egress_userspace::{
    dataplane::{FlowChange, Listener},
    net::kernel,
};

use crate::{
    bench::{Bench, FAMILIES, Family, Setup},
    frames::{endpoints, tcp, udp},
};

/// A bench with this number of flows.
fn bench_for(max_flows: u32) -> Result<Bench> {
    Bench::with(Setup {
        max_flows,
        ..Setup::default()
    })
}

/// Subscribes. `index` is not an interface's, so that each test claims a different subscription.
fn listener(bench: &Bench, subscriber: Subscriber, index: u32) -> Result<Listener> {
    let subscriber = bench.dataplane.maps.subscribe(subscriber)?;
    Ok(subscriber.listen(0x4000_0000 + index)?)
}

fn changes(listener: &mut Listener) -> Result<Vec<FlowChange>> {
    let mut changes = Vec::new();
    while let Some(change) = listener.next_record(FlowChange::read) {
        changes.push(change.context("a record that cannot be read")?);
    }
    Ok(changes)
}

fn kinds(changes: &[FlowChange]) -> Vec<Change> {
    changes.iter().map(|it| it.change).collect()
}

/// A client's datagram that opens a flow.
fn datagram(family: &Family, port: u16) -> Vec<u8> {
    udp((family.client, port), (family.router, 80), b"question").bytes()
}

#[test]
fn events_report_that_a_flow_opens_and_ends_with_its_counters() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let mut log = listener(&bench, Subscriber::Log, 901)?;
    log.renew(kernel::monotonic_ns())?;
    for family in FAMILIES {
        let question = datagram(&family, 2000);
        let (reserved, server) = endpoints(&bench.forward(Cluster, &question)?)?;
        let flow = bench.flow()?;
        let [opened] = &changes(&mut log)?[..] else {
            anyhow::bail!("expected one event");
        };
        ensure!(opened.change == Change::Opened, "{opened:?}");
        ensure!(
            (opened.flow.client, opened.flow.router) == (flow.client, flow.router)
                && (opened.flow.reserved, opened.flow.server) == (flow.reserved, flow.server)
                && opened.flow.rule == flow.rule,
            "{opened:?}"
        );
        ensure!(opened.flow.original.packets == 0, "{opened:?}");

        bench.forward(Egress, &udp(server, reserved, b"the answer").bytes())?;
        bench.dataplane.sweep(
            &Timeouts::default(),
            kernel::monotonic_ns() + 300_000_000_000,
        )?;
        ensure!(bench.entries() == 0, "{:?}", bench.flows());
        let [ended] = &changes(&mut log)?[..] else {
            anyhow::bail!("expected one event");
        };
        ensure!(ended.change == Change::Idle, "{ended:?}");
        ensure!(ended.opened_ns == opened.opened_ns, "{ended:?}");
        let header = if family.client.is_ipv4() { 28 } else { 48 };
        ensure!(
            (ended.flow.original.packets, ended.flow.original.bytes) == (1, header + 8)
                && (ended.flow.reply.packets, ended.flow.reply.bytes) == (1, header + 10),
            "{ended:?}"
        );
    }
    Ok(())
}

#[test]
fn the_end_of_a_flow_says_whether_it_was_closed_or_opened_anew() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let mut follower = listener(&bench, Subscriber::Follow, 902)?;
    follower.renew(kernel::monotonic_ns())?;
    for family in FAMILIES {
        let syn = tcp((family.client, 2000), (family.router, 8080), "S");
        for expected in [Change::Opened, Change::Reopened] {
            let (reserved, server) = endpoints(&bench.forward(Cluster, &syn.bytes())?)?;
            let kinds = kinds(&changes(&mut follower)?);
            ensure!(kinds.contains(&expected), "{kinds:?}");
            ensure!(kinds.last() == Some(&Change::Opened), "{kinds:?}");
            bench.forward(
                Egress,
                &tcp(server, reserved, "RA").sequence_or_tag(0).bytes(),
            )?;
        }
        bench.dataplane.sweep(
            &Timeouts::default(),
            kernel::monotonic_ns() + 20_000_000_000,
        )?;
        let kinds = kinds(&changes(&mut follower)?);
        ensure!(kinds == [Change::Closed], "{kinds:?}");
    }
    Ok(())
}

#[test]
fn an_evicted_flow_is_reported_as_such() -> Result<()> {
    skip_unless_lab_works!();
    for (index, family) in (0..).zip(FAMILIES) {
        let mut bench = bench_for(2)?;
        let mut log = listener(&bench, Subscriber::Log, 910 + index)?;
        log.renew(kernel::monotonic_ns())?;
        let mut evicted = Vec::new();
        for port in 3000..3040 {
            bench.forward(Cluster, &datagram(&family, port))?;
            let changes = changes(&mut log)?;
            let ended = changes.iter().filter(|it| it.change == Change::Evicted);
            evicted.extend(ended.map(|it| it.flow.client.port));
        }
        ensure!(evicted.first() == Some(&3000), "{evicted:?}");
        ensure!(bench.dataplane.maps.count_evicted()? == evicted.len() as u64);
    }
    Ok(())
}

#[test]
fn nothing_is_recorded_without_a_subscriber_or_after_its_lease() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    for family in FAMILIES {
        bench.forward(Cluster, &datagram(&family, 2000))?;
    }
    // The flow log would continue with events recorded before it subscribed.
    let mut log = listener(&bench, Subscriber::Log, 903)?;
    ensure!(changes(&mut log)?.is_empty());
    drop(log);

    let mut bench = Bench::new()?;
    let mut follower = listener(&bench, Subscriber::Follow, 904)?;
    // The lease has expired, as after its process was killed.
    follower.renew(0)?;
    for family in FAMILIES {
        bench.forward(Cluster, &datagram(&family, 2001))?;
    }
    ensure!(changes(&mut follower)?.is_empty());
    ensure!(follower.take_lost()? == 0);
    Ok(())
}

#[test]
fn a_full_ring_buffer_loses_events_and_counts_them_but_no_packet() -> Result<()> {
    skip_unless_lab_works!();
    const FLOWS: u16 = 10_000;
    let mut bench = bench_for(20_000)?;
    let mut log = listener(&bench, Subscriber::Log, 905)?;
    log.renew(kernel::monotonic_ns())?;
    let family = &FAMILIES[0];
    for port in 0..FLOWS {
        bench.forward(Cluster, &datagram(family, 20_000 + port))?;
    }
    let lost = log.take_lost()?;
    let told = changes(&mut log)?.len() as u64;
    ensure!(
        lost > 0 && told + lost == u64::from(FLOWS),
        "{told} reported, {lost} lost"
    );
    ensure!(log.take_lost()? == 0, "a lost event was reported twice");
    bench.refuse(
        Cluster,
        &udp((family.client, 1), (family.router, 9), b"").bytes(),
        Outcome::NoRule,
    )
}
