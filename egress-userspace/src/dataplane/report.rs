//! What the maps say, as a person thinks of it.

use std::{collections::HashMap, net::IpAddr};

use egress_common::{
    Address, Flow, FlowState, Ipv4Address, Outcome, Port, RuleCounters, Side, Traffic, Tuple,
    Verdict, protocol,
};
use serde::Serialize;

use super::maps::{FamilyMaps, Maps, MapsError};

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Endpoint {
    /// The address.
    pub address: IpAddr,
    /// The port.
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::net::SocketAddr::new(self.address, self.port).fmt(f)
    }
}

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TrafficReport {
    /// Packets, as they are on the wire.
    pub packets: u64,
    /// Bytes, from the IP header on.
    pub bytes: u64,
}

impl From<Traffic> for TrafficReport {
    fn from(traffic: Traffic) -> Self {
        Self {
            packets: traffic.packets,
            bytes: traffic.bytes,
        }
    }
}

/// A rule and what it has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    /// Index in `spec.redirect.redirectRules`.
    pub id: u32,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port that clients connect to.
    pub port: u16,
    /// The server.
    pub destination: Endpoint,
    /// Flows opened since the router started.
    pub flows: u64,
    /// From clients to the server.
    pub original: TrafficReport,
    /// From the server to clients.
    pub reply: TrafficReport,
}

/// A flow: `client → router ⇒ reserved → server`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowReport {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The client, as it connects to the router.
    pub client: Endpoint,
    /// The router, as the client connects to it.
    pub router: Endpoint,
    /// The reserved address and NAT port, as the server sees the router.
    pub reserved: Endpoint,
    /// The server.
    pub server: Endpoint,
    /// The connection's state, as conntrack names it.
    pub state: &'static str,
    /// The rule's index in the spec.
    pub rule: u32,
    /// Seconds since the flow was opened.
    pub age_seconds: u64,
    /// Seconds since its last packet; up to one too many.
    pub idle_seconds: u64,
    /// From the client to the server.
    pub original: TrafficReport,
    /// From the server to the client.
    pub reply: TrafficReport,
}

/// How often packets had an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OutcomeReport {
    /// Its name.
    pub name: &'static str,
    /// `pass` (to the pod's own stack) or `drop`.
    pub verdict: &'static str,
    /// Packets since the router started.
    pub packets: u64,
    /// What it means.
    pub description: &'static str,
}

fn endpoint<A: Address + Into<IpAddr>>(address: A, port: Port) -> Endpoint {
    Endpoint {
        address: address.into(),
        port: port.number(),
    }
}

fn protocol_name(number: u8) -> String {
    protocol::name(number).map_or_else(|| number.to_string(), ToOwned::to_owned)
}

impl FlowReport {
    /// A flow out of its two entries.
    pub fn of<A: Address + Into<IpAddr>>(
        tuple: &Tuple<A>,
        original: &Flow<A>,
        reply: &Flow<A>,
        now_ns: u64,
    ) -> Self {
        let seconds_since = |then: u64| now_ns.saturating_sub(then) / 1_000_000_000;
        let translation = &original.translation;
        Self {
            protocol: protocol_name(tuple.protocol),
            client: endpoint(tuple.addresses.source, tuple.ports.source),
            router: endpoint(tuple.addresses.destination, tuple.ports.destination),
            reserved: endpoint(translation.addresses.source, translation.ports.source),
            server: endpoint(
                translation.addresses.destination,
                translation.ports.destination,
            ),
            state: FlowState::of(tuple.protocol, original, reply).name(),
            rule: original.rule,
            age_seconds: seconds_since(original.opened_ns),
            idle_seconds: seconds_since(original.last_seen_ns.max(reply.last_seen_ns)),
            original: original.traffic.into(),
            reply: reply.traffic.into(),
        }
    }
}

/// The flows of one family, as they are met in the table.
fn flows<A: Address + Into<IpAddr> + std::hash::Hash>(
    maps: &FamilyMaps<A>,
    now_ns: u64,
) -> Vec<FlowReport> {
    // The table changes while it is read: an entry may vanish, and that one is left out.
    let entries: HashMap<Tuple<A>, Flow<A>> = maps.flows.iter().filter_map(Result::ok).collect();
    entries
        .iter()
        .filter(|(tuple, _)| tuple.side() == Some(Side::Cluster))
        .filter_map(|(tuple, original)| {
            let reply = entries.get(&original.translation.peer(Side::Cluster, tuple.protocol))?;
            Some(FlowReport::of(tuple, original, reply, now_ns))
        })
        .collect()
}

impl Maps {
    /// All flows, sorted by client and server.
    pub fn flows(&self, now_ns: u64) -> Vec<FlowReport> {
        let mut flows = flows(&self.v4, now_ns);
        flows.sort_by_key(|flow| (flow.client, flow.router, flow.server));
        flows
    }

    /// How many flows there are.
    pub fn count_flows(&self) -> usize {
        let is_original = |key: &Tuple<Ipv4Address>| key.side() == Some(Side::Cluster);
        self.v4
            .flows
            .keys()
            .filter(|key| key.as_ref().is_ok_and(is_original))
            .count()
    }

    /// All rules with their counters, in the order of the spec.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn rules(&self) -> Result<Vec<RuleReport>, MapsError> {
        let mut rules = Vec::new();
        for entry in &self.v4.rules {
            let (key, rule) = entry.map_err(|source| MapsError::Map {
                name: "RULES_V4",
                source,
            })?;
            let RuleCounters { flows, traffic } = self.rule_counters(rule.id)?.unwrap_or_default();
            rules.push(RuleReport {
                id: rule.id,
                protocol: protocol_name(key.protocol),
                port: key.port.number(),
                destination: endpoint(rule.destination, rule.target_port),
                flows,
                original: traffic.original.into(),
                reply: traffic.reply.into(),
            });
        }
        rules.sort_by_key(|rule| rule.id);
        Ok(rules)
    }

    /// Every outcome that a packet which is not forwarded can have, with its count.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn outcomes(&self) -> Result<Vec<OutcomeReport>, MapsError> {
        Outcome::ALL
            .iter()
            .map(|outcome| {
                Ok(OutcomeReport {
                    name: outcome.name(),
                    verdict: match outcome.verdict() {
                        Verdict::Pass => "pass",
                        Verdict::Drop => "drop",
                    },
                    packets: self.count(*outcome)?,
                    description: outcome.description(),
                })
            })
            .collect()
    }
}
