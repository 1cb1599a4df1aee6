//! Trace records as structured values for output.

use std::net::IpAddr;

use egress_common::{
    Decision, ETHERNET_HEADER_LEN, Either, Family, Ipv4Address, Ipv6Address, PacketKind, Side,
    TraceRecord, V4, V6, protocol, tcp::Flags,
};
use serde::Serialize;

use super::report::{Endpoint, FlowReport, OutcomeReport, endpoint, protocol_name};

/// A packet as it arrived, and what the kernel half decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedPacket {
    /// When it arrived: `CLOCK_MONOTONIC` in nanoseconds.
    pub time_ns: u64,
    /// The interface that it arrived on.
    pub side: Side,
    /// The packet as it arrived; `None` if its headers cannot be parsed.
    pub packet: Option<PacketReport>,
    /// The length of the frame in bytes.
    pub length: u32,
    /// Whether the flow existed when the packet arrived.
    pub found: FoundFlow,
    /// The flow after the packet.
    pub flow: Option<FlowReport>,
    /// The kernel half's decision.
    pub decision: Decision,
}

/// The headers of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PacketReport {
    /// `TCP`, `UDP`, `SCTP`, `ICMP`, `ICMPv6`, or a number.
    pub protocol: String,
    /// The sender. The port is 0 if the packet has none.
    pub source: Endpoint,
    /// The receiver.
    pub destination: Endpoint,
    /// The TCP flags that are set, such as `SYN` and `ACK`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<&'static str>,
    /// Time to live, or hop limit.
    pub ttl: u8,
}

/// Whether a packet's flow existed when the packet arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundFlow {
    /// The flow existed.
    Found {
        /// The number of earlier packets in the same direction.
        packets_before: u64,
    },
    /// The packet opened the flow.
    Opened,
    /// The packet opened the flow in place of one that had ended.
    Reopened,
    /// There was no flow, and the packet opened none.
    None,
}

const FLAGS: [(u8, &str); 8] = [
    (Flags::SYN, "SYN"),
    (Flags::ACK, "ACK"),
    (Flags::FIN, "FIN"),
    (Flags::RST, "RST"),
    (0x08, "PSH"),
    (0x20, "URG"),
    (0x40, "ECE"),
    (0x80, "CWR"),
];

impl TracedPacket {
    /// Parses a trace record; `None` for one of an unknown layout.
    pub fn read(record: &[u8]) -> Option<Self> {
        match Either::<TraceRecord<Ipv4Address>, TraceRecord<Ipv6Address>>::read(record)? {
            Either::V4(record) => Self::of::<V4>(&record),
            Either::V6(record) => Self::of::<V6>(&record),
        }
    }

    fn of<F: Family<Address: Into<IpAddr>>>(record: &TraceRecord<F::Address>) -> Option<Self> {
        let flow = record.flow();
        let decision = Decision::from_number(record.decision);
        // A forwarded packet has been counted by now, unless it reopened its flow.
        let is_counted = record.entry.traffic.packets > record.packets_before;
        let is_forwarded = matches!(decision, Decision::Forwarded { .. });
        let found = match (record.was_found != 0, flow) {
            (true, Some(_)) if is_forwarded && !is_counted => FoundFlow::Reopened,
            (true, _) => FoundFlow::Found {
                packets_before: record.packets_before,
            },
            (false, Some(_)) => FoundFlow::Opened,
            (false, None) => FoundFlow::None,
        };
        Some(Self {
            time_ns: record.time_ns,
            side: record.side()?,
            packet: packet::<F>(record.frame()),
            length: record.len,
            found,
            flow: flow.map(|(tuple, original, reply)| {
                FlowReport::of(tuple, original, reply, record.time_ns)
            }),
            decision,
        })
    }

    /// `forward`, or the verdict: `pass`, `drop` or `reject`; `unknown` for an outcome that this version does not know.
    pub fn verdict(&self) -> &'static str {
        self.outcome().map_or("forward", |outcome| outcome.verdict)
    }

    /// Why the packet was not forwarded; `None` if it was forwarded.
    pub fn outcome(&self) -> Option<OutcomeReport> {
        match self.decision {
            Decision::Forwarded { .. } => None,
            Decision::Refused(outcome) => Some(OutcomeReport::of(Ok(outcome))),
            Decision::Unknown(number) => Some(OutcomeReport::of(Err(number))),
        }
    }
}

/// Parses the headers of a packet. `frame` may be truncated.
fn packet<F: Family<Address: Into<IpAddr>>>(frame: &[u8]) -> Option<PacketReport> {
    let network = F::network_header(frame, ETHERNET_HEADER_LEN).ok()?;
    let transport = PacketKind::read::<F>(frame, &network)
        .ok()
        .and_then(PacketKind::transport);
    let ports = transport.map_or_else(bytemuck::Zeroable::zeroed, |it| it.ports);
    let flags = match transport {
        Some(transport) if network.protocol == protocol::TCP => transport.flags.0,
        _ => 0,
    };
    Some(PacketReport {
        protocol: protocol_name(network.protocol),
        source: endpoint(network.addresses.source, ports.source),
        destination: endpoint(network.addresses.destination, ports.destination),
        flags: FLAGS
            .iter()
            .filter(|(bit, _)| flags & bit != 0)
            .map(|(_, name)| *name)
            .collect(),
        ttl: network.ttl,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_record_makes_the_reader_panic(
            record in prop_oneof![
                proptest::collection::vec(any::<u8>(), size_of::<TraceRecord<Ipv4Address>>()),
                proptest::collection::vec(any::<u8>(), size_of::<TraceRecord<Ipv6Address>>()),
                proptest::collection::vec(any::<u8>(), 0..512),
            ]
        ) {
            if let Some(packet) = TracedPacket::read(&record) {
                prop_assert!(["forward", "pass", "drop", "reject", "unknown"].contains(&packet.verdict()));
            }
            let _ = crate::dataplane::FlowChange::read(&record);
        }
    }
}
