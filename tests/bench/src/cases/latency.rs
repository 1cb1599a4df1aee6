//! The time until an answer: one byte there and back, one question at a time.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use egress_tests::{Protocol, tcp, udp};

use super::services::{Connections, Echo, Listener, answer_always};
use crate::bench::{Bench, pinned};
use crate::contender::{Contender, Load, Testbed, service};
use crate::report::{RatiosOf, Table, compare};
use crate::stats::{Better, quantile};

/// The reported quantiles.
const QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];

struct Track {
    client: Client,
    _testbed: Testbed,
}

enum Client {
    Udp(
        UdpSocket,
        #[expect(dead_code, reason = "answers until it is dropped")] Echo,
    ),
    Tcp(
        Connections,
        #[expect(dead_code, reason = "listens until it is dropped")] Listener,
    ),
}

/// Measures over UDP or TCP. Client and server share a CPU; otherwise the wake-up time of an idle CPU would hide the
/// rest.
pub fn measure(bench: &mut Bench, case: &'static str, protocol: Protocol) -> Result<Vec<Table>> {
    let load = Load {
        rules: 2,
        protocol,
        flows: 0,
        changes_ports: true,
    };
    let built = bench.testbeds(&Contender::CONNECTING, load)?;
    let (contenders, skipped) = (built.contenders(), built.skipped);
    let (cpu, burst) = (bench.cpu, bench.plan.burst);
    let mut tracks = Vec::new();
    for testbed in built.testbeds {
        tracks.push(Track::open(testbed, protocol, cpu)?);
    }
    let samples = bench.interleave(case, Better::Lower, &mut tracks, |track| {
        pinned(cpu, || track.sample(burst))
    })?;
    let name = protocol.name();
    let tables = QUANTILES
        .iter()
        .zip(samples)
        .map(|((quantile, _), samples)| Table {
            case,
            title: format!("{name} question and answer, {quantile}, one CPU"),
            unit: "µs",
            better: Better::Lower,
            rounds: bench.plan.rounds,
            ratios_of: RatiosOf::Value,
            rows: compare(&contenders, &samples, RatiosOf::Value),
            notes: Vec::new(),
            harness_error: None,
        });
    let mut tables: Vec<_> = tables.collect();
    if let Some(first) = tables.first_mut() {
        first.rows.extend(skipped);
    }
    Ok(tables)
}

impl Track {
    fn open(testbed: Testbed, protocol: Protocol, cpu: usize) -> Result<Self> {
        let (servers, client) = (testbed.lab.servers(), testbed.lab.client());
        let (server, to) = (service(protocol, 0).server(), testbed.reach(protocol, 0));
        let client = if protocol == Protocol::Udp {
            let echo = Echo::start(servers, server, cpu)?;
            Client::Udp(udp::connect(client, to)?, echo)
        } else {
            let listener = Listener::start(servers, server, cpu, answer_always)?;
            Client::Tcp(Connections(vec![tcp::connect(client, to)?]), listener)
        };
        Ok(Self {
            client,
            _testbed: testbed,
        })
    }

    /// The quantiles of a burst, in microseconds.
    fn sample(&mut self, burst: Duration) -> Result<[f64; 3]> {
        let start = Instant::now();
        let mut times = Vec::new();
        while start.elapsed() < burst {
            let asked = Instant::now();
            self.client.ask().context("waiting for an answer")?;
            times.push(asked.elapsed().as_secs_f64() * 1e6);
        }
        Ok(QUANTILES.map(|(_, share)| quantile(&times, share)))
    }
}

impl Client {
    fn ask(&self) -> Result<()> {
        let mut byte = [1];
        match self {
            Self::Udp(socket, _) => {
                socket.send(&byte)?;
                socket.recv(&mut byte)?;
            }
            Self::Tcp(connections, _) => {
                let mut stream: &TcpStream = &connections.0[0];
                stream.write_all(&byte)?;
                stream.read_exact(&mut byte)?;
            }
        }
        Ok(())
    }
}
