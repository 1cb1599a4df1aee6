//! The cost of an SCTP packet with a changed port, by its length. The CRC32c covers the whole packet.
//!
//! As in [`super::packets`], the path is from the node's end of the router's link to the point where packets leave
//! towards the gateway.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use egress_tests::Protocol;
use egress_tests::sender::FrameSender;
use etherparse::{PacketBuilder, ip_number};

use super::program::{CLIENT_PORT, SCTP_DATA, SCTP_INIT, TTL, allow_long_packets, sctp_packet};
use crate::bench::{Bench, pinned, progress, robust_rate};
use crate::contender::{Contender, Load, Testbed};
use crate::kernel::Sink;
use crate::report::{RatiosOf, Row, Table};
use crate::source::Path;
use crate::stats::Better;

const BATCH: usize = 64;
/// The length of the IP header and everything before it.
const HEADERS_LEN: usize = 14 + 20;
/// The duration of a slice of a burst.
const SLICE: Duration = Duration::from_millis(10);

/// Frames without their frame check sequence, in the lengths of [`LENGTHS`].
const SHORT: usize = LENGTHS[0] - 4;
const MIDDLE: usize = LENGTHS[1] - 4;
const LONG: usize = LENGTHS[2] - 4;
const LENGTHS: [usize; 3] = [64, 1_400, 9_000];

/// Frames of one length, which end at one of the sinks.
struct Stream<'s> {
    send: Box<dyn FnMut() -> Result<usize>>,
    sink: &'s Sink,
}

/// Measures packets of each length through the router, and sending alone.
pub fn measure(bench: &mut Bench) -> Result<Table> {
    let load = Load {
        rules: 1,
        protocol: Protocol::Sctp,
        flows: 1,
        changes_ports: true,
    };
    let built = bench.testbeds(&[Contender::EgressRouter, Contender::Sending], load)?;
    let [router, sending] = &built.testbeds[..] else {
        anyhow::bail!("the router and sending are always available");
    };
    let sinks = [
        bench.object.sink(router.lab.gateway(), "node0")?,
        bench.object.sink(sending.lab.router(), "eth0")?,
    ];
    let mut streams = Vec::new();
    for (testbed, sink) in [router, sending].into_iter().zip(&sinks) {
        allow_long_packets(&testbed.lab)?;
        progress(&format!(
            "opening an association through {}",
            testbed.contender.name()
        ));
        stream::<SHORT>(testbed, sink, SCTP_INIT)?.send_batch()?;
        streams.push(stream::<SHORT>(testbed, sink, SCTP_DATA)?);
        streams.push(stream::<MIDDLE>(testbed, sink, SCTP_DATA)?);
        streams.push(stream::<LONG>(testbed, sink, SCTP_DATA)?);
    }
    let (cpu, burst) = (bench.cpu, bench.plan.burst);
    let [samples] = bench.interleave("sctp", Better::Higher, &mut streams, |stream| {
        pinned(cpu, || stream.sample(burst)).map(|rate| [rate])
    })?;
    let cost = |value: &dyn Fn(usize) -> f64, one: usize| {
        1e9 / value(one) - 1e9 / value(one + LENGTHS.len())
    };
    let row = |(one, length): (usize, &usize)| Row {
        cost_ns: Some(samples.estimate(|value| cost(value, one))),
        ..Row::of(
            format!("egress-router, {length} bytes"),
            samples.estimate(|value| value(one)),
        )
    };
    let growth = samples.estimate(|value| cost(value, LENGTHS.len() - 1) / cost(value, 0));
    Ok(Table {
        case: "sctp",
        title: "SCTP with a changed port, one association, one CPU".into(),
        unit: "packets/s",
        better: Better::Higher,
        rounds: bench.plan.rounds,
        ratios_of: RatiosOf::Cost,
        rows: LENGTHS.iter().enumerate().map(row).collect(),
        notes: vec![format!(
            "Beyond sending, {} bytes cost {:.2} times what {} bytes do ({:.2} to {:.2}).",
            LENGTHS[2], growth.value, LENGTHS[0], growth.low, growth.high
        )],
        harness_error: None,
    })
}

fn stream<'s, const LEN: usize>(testbed: &Testbed, sink: &'s Sink, kind: u8) -> Result<Stream<'s>> {
    let Path {
        macs: [source_mac, destination_mac],
        addresses: [source, destination],
        port,
        ..
    } = testbed.path()?;
    let packet = sctp_packet((CLIENT_PORT, port), kind, LEN - HEADERS_LEN)?;
    let mut frame = Vec::with_capacity(LEN);
    PacketBuilder::ethernet2(source_mac.0, destination_mac.0)
        .ipv4(source.octets(), destination.octets(), TTL)
        .write(&mut frame, ip_number::SCTP, &packet)?;
    let frame: [u8; LEN] = frame[..].try_into().context("a frame of another length")?;
    let frames: Box<[[u8; LEN]; BATCH]> = vec![frame; BATCH]
        .into_boxed_slice()
        .try_into()
        .map_err(|_| anyhow::anyhow!("a batch of another length"))?;
    let mut sender = FrameSender::<BATCH>::on(testbed.lab.node(), "router")?;
    Ok(Stream {
        send: Box::new(move || sender.send(&frames)),
        sink,
    })
}

impl Stream<'_> {
    fn send_batch(&mut self) -> Result<u64> {
        Ok((self.send)()? as u64)
    }

    /// The number of packets per second that arrive.
    fn sample(&mut self, burst: Duration) -> Result<f64> {
        robust_rate(burst, || self.sample_slice())
    }

    fn sample_slice(&mut self) -> Result<f64> {
        let before = self.sink.taken()?;
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < SLICE {
            sent += self.send_batch()?;
        }
        let elapsed = start.elapsed();
        let taken = self.sink.taken()? - before;
        ensure!(2 * taken > sent, "{taken} of {sent} packets arrived");
        #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 packets")]
        let taken = taken as f64;
        Ok(taken / elapsed.as_secs_f64())
    }
}
