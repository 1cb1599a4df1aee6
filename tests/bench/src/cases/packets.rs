//! The cost of a packet of an established flow: the shortest UDP datagrams, as fast as one CPU sends them.
//!
//! The source sends on the node's end of the link to the router's `eth0`. A sink takes the packets where they leave the
//! node towards the gateway. Everything in between is the router's work and runs on the sending CPU, because a veth
//! pair passes packets on without changing the CPU.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use egress_tests::Protocol;

use crate::bench::{Bench, pinned, progress, robust_rate};
use crate::contender::{Contender, Load, Testbed};
use crate::kernel::{Object, Sink};
use crate::report::{RatiosOf, Table, compare, count};
use crate::source::{PORTS, Source};
use crate::stats::Better;

/// A contender with a source before it and a sink behind it.
struct Track {
    source: Source,
    sink: Sink,
    sent: u64,
    taken: u64,
    // Declared after everything that is attached in it.
    _testbed: Testbed,
}

/// More than enough to send one packet of each of a million flows.
const PATIENCE: Duration = Duration::from_mins(1);
/// The duration of a slice of a burst.
const SLICE: Duration = Duration::from_millis(10);
/// The share of lost packets above which a sample is useless.
const BEARABLE_LOSS: f64 = 0.5;

/// Measures datagrams of this many flows.
pub fn measure(bench: &mut Bench, case: &'static str, flows: u32) -> Result<Table> {
    let services = u16::try_from(flows.div_ceil(PORTS).max(2))?;
    let load = Load {
        rules: services,
        protocol: Protocol::Udp,
        flows,
        changes_ports: true,
    };
    let built = bench.testbeds(&Contender::ALL, load)?;
    let (contenders, skipped) = (built.contenders(), built.skipped);
    let mut tracks = Vec::new();
    for testbed in built.testbeds {
        let name = testbed.contender.name();
        progress(&format!("opening {flows} flows through {name}"));
        tracks.push(
            Track::open(testbed, &bench.object, flows, services)
                .with_context(|| format!("opening flows through {name}"))?,
        );
    }
    let (cpu, burst) = (bench.cpu, bench.plan.burst);
    let [samples] = bench.interleave(case, Better::Higher, &mut tracks, |track| {
        pinned(cpu, || track.sample(burst)).map(|rate| [rate])
    })?;
    let mut rows = compare(&contenders, &samples, RatiosOf::Cost);
    for (row, track) in rows.iter_mut().zip(&tracks) {
        row.lost = Some(track.lost());
    }
    rows.extend(skipped);
    Ok(Table {
        case,
        title: match flows {
            1 => "64-byte UDP, one flow, one CPU".to_owned(),
            flows => format!("64-byte UDP, {} flows, one CPU", count(flows)),
        },
        unit: "packets/s",
        better: Better::Higher,
        rounds: bench.plan.rounds,
        ratios_of: RatiosOf::Cost,
        rows,
        notes: Vec::new(),
        harness_error: None,
    })
}

impl Track {
    /// Sends a packet of every flow, so that all of them are established.
    fn open(testbed: Testbed, object: &Object, flows: u32, services: u16) -> Result<Self> {
        let (namespace, interface) = match testbed.contender {
            Contender::Sending => (testbed.lab.router(), "eth0"),
            _ => (testbed.lab.gateway(), "node0"),
        };
        let sink = object.sink(namespace, interface)?;
        let mut source = Source::on(
            testbed.lab.node(),
            "router",
            testbed.path()?,
            flows,
            services.into(),
        )?;
        let sent = source.send_count(flows.into(), PATIENCE)?;
        ensure!(
            sent.packets >= flows.into(),
            "only {} of {flows} flows were opened in {PATIENCE:?}",
            sent.packets
        );
        let taken = sink.taken()?;
        ensure!(
            taken > 0,
            "none of {} packets arrived behind the router",
            sent.packets
        );
        Ok(Self {
            source,
            sink,
            sent: 0,
            taken: 0,
            _testbed: testbed,
        })
    }

    /// The number of packets per second that arrive.
    fn sample(&mut self, burst: Duration) -> Result<f64> {
        robust_rate(burst, || self.sample_slice())
    }

    fn sample_slice(&mut self) -> Result<f64> {
        let before = self.sink.taken()?;
        let sent = self.source.send_for(SLICE)?;
        let taken = self.sink.taken()? - before;
        self.sent += sent.packets;
        self.taken += taken;
        ensure!(
            self.lost() < BEARABLE_LOSS,
            "{taken} of {} packets arrived",
            sent.packets
        );
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 packets")]
        let taken = taken as f64;
        Ok(taken / sent.elapsed.as_secs_f64())
    }

    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 packets")]
    fn lost(&self) -> f64 {
        1.0 - self.taken as f64 / self.sent as f64
    }
}
