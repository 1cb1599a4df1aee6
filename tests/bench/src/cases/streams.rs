//! TCP throughput: long-lived connections, the senders on one CPU and the receivers on another.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use egress_tests::cpu::pin;
use egress_tests::{PATIENCE, Protocol, tcp};

use super::services::{Connections, Listener, count_bytes};
use crate::bench::Bench;
use crate::contender::{Contender, Load, Testbed, service};
use crate::report::{RatiosOf, Table, compare};
use crate::stats::Better;

/// The size of a write.
const BLOCK: usize = 128 * 1024;

/// A contender with connections through it.
struct Track {
    connections: Connections,
    received: Arc<AtomicU64>,
    cpu: usize,
    _listener: Listener,
    _testbed: Testbed,
}

/// Measures this many simultaneous streams.
pub fn measure(bench: &mut Bench, case: &'static str, streams: usize) -> Result<Table> {
    let load = Load {
        rules: 2,
        protocol: Protocol::Tcp,
        flows: 0,
        changes_ports: true,
    };
    let built = bench.testbeds(&Contender::CONNECTING, load)?;
    let (contenders, skipped) = (built.contenders(), built.skipped);
    let mut tracks = Vec::new();
    for testbed in built.testbeds {
        let name = testbed.contender.name();
        tracks.push(
            Track::open(testbed, streams, bench)
                .with_context(|| format!("connecting through {name}"))?,
        );
    }
    let burst = bench.plan.burst;
    let [samples] = bench.interleave(case, Better::Higher, &mut tracks, |track| {
        track.sample(burst).map(|rate| [rate])
    })?;
    let mut rows = compare(&contenders, &samples, RatiosOf::Value);
    rows.extend(skipped);
    Ok(Table {
        case,
        title: match streams {
            1 => "TCP, one stream".to_owned(),
            streams => format!("TCP, {streams} streams together"),
        },
        unit: "Gbit/s",
        better: Better::Higher,
        rounds: bench.plan.rounds,
        ratios_of: RatiosOf::Value,
        rows,
        notes: Vec::new(),
        harness_error: None,
    })
}

impl Track {
    fn open(testbed: Testbed, streams: usize, bench: &Bench) -> Result<Self> {
        let received = Arc::new(AtomicU64::new(0));
        let server = service(Protocol::Tcp, 0).server();
        let serve = count_bytes(Arc::clone(&received), bench.other_cpu);
        let listener = Listener::start(testbed.lab.servers(), server, bench.other_cpu, serve)?;
        let to = testbed.reach(Protocol::Tcp, 0);
        let streams = (0..streams).map(|_| tcp::connect(testbed.lab.client(), to));
        Ok(Self {
            connections: Connections(streams.collect::<Result<_>>()?),
            received,
            cpu: bench.cpu,
            _listener: listener,
            _testbed: testbed,
        })
    }

    /// The throughput in Gbit/s.
    fn sample(&self, burst: Duration) -> Result<f64> {
        let before = self.received.load(Ordering::Acquire);
        let start = Instant::now();
        let end = start + burst;
        let sent = thread::scope(|scope| {
            let senders = self.connections.0.iter();
            let senders: Vec<_> = senders
                .map(|stream| scope.spawn(|| send_until(stream, end, self.cpu)))
                .collect();
            senders
                .into_iter()
                .map(|sender| sender.join().expect("no panic"))
                .sum::<Result<u64>>()
        })?;
        // Data in flight still counts for this sample and must not disturb the next.
        let deadline = Instant::now() + PATIENCE;
        while self.received.load(Ordering::Acquire) < before + sent {
            ensure!(Instant::now() < deadline, "not everything has arrived");
            thread::sleep(Duration::from_micros(100));
        }
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 bytes")]
        let bits = sent as f64 * 8.0;
        Ok(bits / start.elapsed().as_secs_f64() / 1e9)
    }
}

fn send_until(mut stream: &TcpStream, end: Instant, cpu: usize) -> Result<u64> {
    pin(cpu)?;
    let block = vec![0; BLOCK];
    let mut sent = 0;
    while Instant::now() < end {
        stream.write_all(&block).context("sending")?;
        sent += block.len() as u64;
    }
    Ok(sent)
}
