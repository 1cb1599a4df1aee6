//! New UDP flows per second, by the number of rules.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use egress_tests::Protocol;

use crate::bench::{Bench, pinned};
use crate::contender::{Contender, Load, Testbed};
use crate::kernel::{Object, Sink};
use crate::report::{RatiosOf, Table, compare, count};
use crate::source::Source;
use crate::stats::Better;

const CONTENDERS: [Contender; 5] = [
    Contender::EgressRouter,
    Contender::EgressRouterAgain,
    Contender::Nftables,
    Contender::Iptables,
    Contender::Sending,
];
/// The number of flows that each contender opens in all. Two services have no more ports that every contender
/// preserves.
const FLOWS: u32 = 62_000;
/// The number of flows spread over the rounds; smaller, because batches are rounded up.
const SPREAD: u32 = 60_000;
/// The longest duration of a sample, however many flows were opened.
const LONGEST: Duration = Duration::from_secs(1);

struct Track {
    source: Source,
    sink: Sink,
    // Declared after everything that is attached in it.
    _testbed: Testbed,
}

/// Measures with this many rules, one for each UDP port from 1 on. Flows are spread evenly over them.
pub fn measure(bench: &mut Bench, case: &'static str, rules: u16) -> Result<Table> {
    let load = Load {
        rules,
        protocol: Protocol::Udp,
        flows: FLOWS,
        changes_ports: false,
    };
    let built = bench.testbeds(&CONTENDERS, load)?;
    let (contenders, skipped) = (built.contenders(), built.skipped);
    let tracks = built
        .testbeds
        .into_iter()
        .map(|testbed| Track::open(testbed, &bench.object, rules));
    let mut tracks: Vec<_> = tracks.collect::<Result<_>>()?;
    let cpu = bench.cpu;
    let flows = u64::from(SPREAD) / (bench.plan.rounds as u64 + 1);
    let [samples] = bench.interleave(case, Better::Higher, &mut tracks, |track| {
        pinned(cpu, || track.sample(flows)).map(|rate| [rate])
    })?;
    let mut rows = compare(&contenders, &samples, RatiosOf::Value);
    rows.extend(skipped);
    Ok(Table {
        case,
        title: format!("New UDP flows, {} rules, one CPU", count(rules.into())),
        unit: "flows/s",
        better: Better::Higher,
        rounds: bench.plan.rounds,
        ratios_of: RatiosOf::Value,
        rows,
        notes: Vec::new(),
        harness_error: None,
    })
}

impl Track {
    fn open(testbed: Testbed, object: &Object, rules: u16) -> Result<Self> {
        let (namespace, interface) = match testbed.contender {
            Contender::Sending => (testbed.lab.router(), "eth0"),
            _ => (testbed.lab.gateway(), "node0"),
        };
        let (node, path) = (testbed.lab.node(), testbed.path()?);
        Ok(Self {
            sink: object.sink(namespace, interface)?,
            source: Source::on(node, "router", path, FLOWS, rules.into())?,
            _testbed: testbed,
        })
    }

    /// The number of flows per second whose first packet arrives.
    fn sample(&mut self, flows: u64) -> Result<f64> {
        let before = self.sink.taken()?;
        let sent = self.source.send_count(flows, LONGEST)?;
        let taken = self.sink.taken()? - before;
        ensure!(
            taken > sent.packets / 2,
            "{taken} of {} new flows were opened",
            sent.packets
        );
        let taken = u32::try_from(taken).context("a few thousand flows")?;
        Ok(f64::from(taken) / sent.elapsed.as_secs_f64())
    }
}
