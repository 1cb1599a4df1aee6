//! Short connections per second: connect, a byte there, a byte back, close.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use egress_tests::{PATIENCE, Protocol};

use super::services::{Listener, answer_once};
use crate::bench::{Bench, pinned};
use crate::contender::{Contender, Load, Testbed, service};
use crate::report::{RatiosOf, Table, compare};
use crate::stats::Better;

/// The number of services, used in turn so that closed connections do not exhaust a service's ports.
const SERVICES: u16 = 16;

struct Track {
    next: usize,
    reach: Vec<SocketAddr>,
    _listeners: Vec<Listener>,
    testbed: Testbed,
}

/// Measures connections one after another. Client and server share a CPU, so that neither waits for the other to wake
/// up.
pub fn measure(bench: &mut Bench) -> Result<Table> {
    let load = Load {
        rules: SERVICES,
        protocol: Protocol::Tcp,
        flows: 0,
        changes_ports: true,
    };
    let built = bench.testbeds(&Contender::CONNECTING, load)?;
    let (contenders, skipped) = (built.contenders(), built.skipped);
    let (cpu, burst) = (bench.cpu, bench.plan.burst);
    let tracks = built
        .testbeds
        .into_iter()
        .map(|testbed| Track::open(testbed, cpu));
    let mut tracks: Vec<_> = tracks.collect::<Result<_>>()?;
    let [samples] = bench.interleave("connections", Better::Higher, &mut tracks, |track| {
        track.sample(cpu, burst).map(|rate| [rate])
    })?;
    let mut rows = compare(&contenders, &samples, RatiosOf::Value);
    rows.extend(skipped);
    Ok(Table {
        case: "connections",
        title: "TCP connect, request, answer, close; one after another, one CPU".into(),
        unit: "connections/s",
        better: Better::Higher,
        rounds: bench.plan.rounds,
        ratios_of: RatiosOf::Value,
        rows,
        notes: vec![
            "Client ports are Linux's usual ones, which are outside of the router's range: it gives each connection another."
                .into(),
        ],
        harness_error: None,
    })
}

impl Track {
    fn open(testbed: Testbed, cpu: usize) -> Result<Self> {
        let listeners = (0..SERVICES).map(|n| {
            let server = service(Protocol::Tcp, n).server();
            Listener::start(testbed.lab.servers(), server, cpu, answer_once)
        });
        Ok(Self {
            _listeners: listeners.collect::<Result<_>>()?,
            reach: (0..SERVICES)
                .map(|n| testbed.reach(Protocol::Tcp, n))
                .collect(),
            next: 0,
            testbed,
        })
    }

    fn sample(&mut self, cpu: usize, burst: Duration) -> Result<f64> {
        let (next, reach) = (&mut self.next, &self.reach);
        self.testbed.lab.client().run(|| {
            pinned(cpu, || {
                let start = Instant::now();
                let mut connections = 0;
                while start.elapsed() < burst {
                    let to = reach[*next % reach.len()];
                    *next += 1;
                    ask(to).with_context(|| format!("asking {to}"))?;
                    connections += 1;
                }
                Ok(f64::from(connections) / start.elapsed().as_secs_f64())
            })
        })
    }
}

fn ask(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE).context("connecting")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(&[1])?;
    // Reads to the end, because the server closes first.
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    anyhow::ensure!(answer == [1], "the answer is {answer:?}");
    Ok(())
}
