//! How many new UDP flows a second can be opened, by the number of rules.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use egress_tests::Protocol;

use crate::bench::{Bench, pinned};
use crate::contender::{Contender, Load, Stand};
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
/// What each contender opens in all: two services have no more ports that every contender leaves as they are.
const FLOWS: u32 = 62_000;
/// What is spread over the rounds; less, as batches are rounded up.
const SPREAD: u32 = 60_000;
/// A sample ends by then, with as many flows as there are.
const LONGEST: Duration = Duration::from_secs(1);

struct Track {
    source: Source,
    sink: Sink,
    // Behind what is attached in it.
    _stand: Stand,
}

/// Measures with this many rules, one for each UDP port from 1 on. Flows go to all of them alike.
pub fn measure(bench: &mut Bench, case: &'static str, rules: u16) -> Result<Table> {
    let load = Load {
        rules,
        protocol: Protocol::Udp,
        flows: FLOWS,
        changes_ports: false,
    };
    let field = bench.field(&CONTENDERS, load)?;
    let (contenders, skipped) = (field.contenders(), field.skipped);
    let tracks = field
        .stands
        .into_iter()
        .map(|stand| Track::open(stand, &bench.object, rules));
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
    fn open(stand: Stand, object: &Object, rules: u16) -> Result<Self> {
        let (namespace, interface) = match stand.contender {
            Contender::Sending => (stand.lab.router(), "eth0"),
            _ => (stand.lab.gateway(), "node0"),
        };
        let (node, path) = (stand.lab.node(), stand.path()?);
        Ok(Self {
            sink: object.sink(namespace, interface)?,
            source: Source::on(node, "router", path, FLOWS, rules.into())?,
            _stand: stand,
        })
    }

    /// Flows a second whose first packet arrives.
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
