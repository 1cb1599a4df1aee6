//! The cases of the benchmarks.

mod connections;
mod latency;
mod loading;
mod memory;
mod new_flows;
mod packets;
mod program;
mod reload;
mod sctp;
mod services;
mod streams;
mod tools;

use anyhow::{Context as _, Result};
use clap::ValueEnum;
use egress_tests::Protocol;

use crate::bench::Bench;
use crate::report::Table;

/// A case on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Case {
    /// 64-byte UDP datagrams of one flow
    Flow,
    /// 64-byte UDP datagrams of 60,000 flows
    Flows60k,
    /// The router's programs by themselves, for each kind of packet
    Program,
    /// SCTP with a changed port, by the length of its packets
    Sctp,
    /// TCP, one stream
    Stream,
    /// TCP, eight streams together
    Streams8,
    /// TCP, one stream, as iperf3 measures it
    Iperf3,
    /// HTTP requests, as wrk measures them
    Wrk,
    /// TCP connect, request, answer, close
    Connections,
    /// New UDP flows with 2 rules
    Rules2,
    /// New UDP flows with 2,000 rules
    Rules2000,
    /// New UDP flows with 65,535 rules
    Rules65535,
    /// Time of an answer over UDP
    LatencyUdp,
    /// Time of an answer over TCP
    LatencyTcp,
    /// 64-byte UDP datagrams of 1,000,000 flows
    Flows1m,
    /// From the start until traffic is redirected
    Start,
    /// Replacing all of 10,000 rules
    Reload,
    /// Memory of a flow
    Memory,
}

impl Case {
    /// The cases of a run: those named on the command line, else those of the mode.
    pub fn chosen(named: &[Self], quick: bool) -> Vec<Self> {
        if !named.is_empty() {
            return named.to_vec();
        }
        let every = Self::value_variants().iter().copied();
        every.filter(|case| !quick || case.is_quick()).collect()
    }

    /// Whether the case is part of a quick run.
    const fn is_quick(self) -> bool {
        !matches!(
            self,
            Self::Rules65535
                | Self::LatencyUdp
                | Self::LatencyTcp
                | Self::Flows1m
                | Self::Iperf3
                | Self::Wrk
                | Self::Start
                | Self::Reload
                | Self::Memory
        )
    }

    pub fn name(self) -> String {
        self.to_possible_value()
            .map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Measures the case.
    pub fn run(self, bench: &mut Bench) -> Result<Vec<Table>> {
        let tables = self
            .measure(bench)
            .with_context(|| format!("the case {}", self.name()))?;
        Ok(tables.into_iter().map(Table::judged).collect())
    }

    fn measure(self, bench: &mut Bench) -> Result<Vec<Table>> {
        let table = match self {
            Self::Flow => packets::measure(bench, "flow", 1),
            Self::Flows60k => packets::measure(bench, "flows60k", 60_000),
            Self::Flows1m => packets::measure(bench, "flows1m", 1_000_000),
            Self::Program => program::measure(bench),
            Self::Stream => streams::measure(bench, "stream", 1),
            Self::Streams8 => streams::measure(bench, "streams8", 8),
            Self::Connections => connections::measure(bench),
            Self::Rules2 => new_flows::measure(bench, "rules2", 2),
            Self::Rules2000 => new_flows::measure(bench, "rules2000", 2_000),
            Self::Rules65535 => new_flows::measure(bench, "rules65535", u16::MAX),
            Self::Start => loading::measure(bench),
            Self::Sctp => sctp::measure(bench),
            Self::Iperf3 => tools::measure(bench, tools::Tool::Iperf3),
            Self::Wrk => tools::measure(bench, tools::Tool::Wrk),
            Self::Reload => reload::measure(bench),
            Self::Memory => memory::measure(),
            Self::LatencyUdp => return latency::measure(bench, "latency-udp", Protocol::Udp),
            Self::LatencyTcp => return latency::measure(bench, "latency-tcp", Protocol::Tcp),
        }?;
        Ok(vec![table])
    }
}
