//! The contents of the maps as structured values for output.

use std::{borrow::Cow, net::IpAddr};

use egress_api::Family;
use egress_common::{
    Address, Flow, FlowState, Outcome, Port, RuleCounters, Side, Traffic, Tuple, Verdict, protocol,
};
use serde::Serialize;

use super::maps::{FamilyMaps, Maps};
use super::maps_error::MapsError;

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

/// The destination of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// The server.
    pub address: IpAddr,
    /// The server's port; `None` for the fallback, which keeps the port that the client connects to.
    pub port: Option<u16>,
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.port {
            Some(port) => std::net::SocketAddr::new(self.address, port).fmt(f),
            None => self.address.fmt(f),
        }
    }
}

/// Packets and bytes of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TrafficReport {
    /// Packets as they are on the wire.
    pub packets: u64,
    /// Bytes from the IP header on.
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

/// A rule and its counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    /// The rule id. At the start it is the index in `spec.redirect.redirectRules`, and the fallback has the next one. A
    /// rule keeps its id across reloads.
    pub id: u32,
    /// `TCP`, `UDP` or `SCTP`; `any` for the fallback.
    pub protocol: String,
    /// The port that clients connect to; `None` for the fallback, which takes every port without a rule.
    pub port: Option<u16>,
    /// The server.
    pub destination: Target,
    /// Flows opened since the router started.
    pub flows: u64,
    /// Traffic from clients to the server.
    pub original: TrafficReport,
    /// Traffic from the server to clients.
    pub reply: TrafficReport,
}

/// A flow: `client → router ⇒ reserved → server`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowReport {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The client.
    pub client: Endpoint,
    /// The router's endpoint that the client connects to.
    pub router: Endpoint,
    /// The reserved address and NAT port, which the server sees as its peer.
    pub reserved: Endpoint,
    /// The server.
    pub server: Endpoint,
    /// The connection's state, by conntrack's name.
    pub state: &'static str,
    /// The rule id.
    pub rule: u32,
    /// Seconds since the flow was opened.
    pub age_seconds: u64,
    /// Seconds since the last packet, up to one second too many.
    pub idle_seconds: u64,
    /// Traffic from the client to the server.
    pub original: TrafficReport,
    /// Traffic from the server to the client.
    pub reply: TrafficReport,
}

/// An outcome and its counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OutcomeReport {
    /// The outcome's name; `unknown_` and the number for one that this version does not know.
    pub name: Cow<'static, str>,
    /// `pass` (to the pod's own stack), `drop`, `reject` (drop and notify the sender), or `unknown`.
    pub verdict: &'static str,
    /// Packets since the router started.
    pub packets: u64,
    /// What it means.
    pub description: &'static str,
}

pub(super) fn endpoint<A: Address + Into<IpAddr>>(address: A, port: Port) -> Endpoint {
    Endpoint {
        address: address.into(),
        port: port.number(),
    }
}

pub(super) fn protocol_name(number: u8) -> String {
    protocol::name(number).map_or_else(|| number.to_string(), ToOwned::to_owned)
}

/// The sort key of a flow: client, router, server and protocol. It is unique.
pub type FlowKey = (Endpoint, Endpoint, Endpoint, String);

impl FlowReport {
    /// The flow's sort key.
    pub fn key(&self) -> FlowKey {
        (self.client, self.router, self.server, self.protocol.clone())
    }

    /// Makes a report from a flow's two entries.
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

/// The tuples of the original entries of one family, in the order of the flow table.
///
/// The kernel restarts the walk if its current key was deleted in the meantime. A tuple may therefore come twice, and
/// the size of the table, two entries for each flow, bounds the walk.
fn original_tuples<A: Address>(
    maps: &FamilyMaps<A>,
    max_flows: u32,
) -> impl Iterator<Item = Tuple<A>> + '_ {
    maps.flows
        .keys()
        .take(2 * max_flows as usize)
        .filter_map(Result::ok)
        .filter(|tuple| tuple.side() == Some(Side::Cluster))
}

/// The flows of one family as tuple, original entry and reply entry. A flow that ends during the walk is left out.
fn entries<A: Address>(
    maps: &FamilyMaps<A>,
    max_flows: u32,
) -> impl Iterator<Item = (Tuple<A>, Flow<A>, Flow<A>)> + '_ {
    original_tuples(maps, max_flows).filter_map(|tuple| {
        let original = maps.flows.get(&tuple, 0).ok()?;
        let peer = original.translation.peer(Side::Cluster, tuple.protocol);
        let reply = maps.flows.get(&peer, 0).ok()?;
        Some((tuple, original, reply))
    })
}

fn flows<A: Address + Into<IpAddr>>(
    maps: &FamilyMaps<A>,
    max_flows: u32,
    now_ns: u64,
) -> impl Iterator<Item = FlowReport> + '_ {
    entries(maps, max_flows)
        .map(move |(tuple, original, reply)| FlowReport::of(&tuple, &original, &reply, now_ns))
}

/// The number of flows of one family, one system call each. Flows that come twice may be counted twice, so `max_flows`
/// bounds the result.
fn count_flows<A: Address>(maps: &FamilyMaps<A>, max_flows: u32) -> usize {
    original_tuples(maps, max_flows)
        .count()
        .min(max_flows as usize)
}

/// The number of flows of one family that are not established, and may be evicted.
fn count_expendable<A: Address>(maps: &FamilyMaps<A>, max_flows: u32) -> usize {
    entries(maps, max_flows)
        .filter(|(tuple, original, reply)| {
            FlowState::of(tuple.protocol, original, reply).is_expendable()
        })
        .count()
}

impl Maps {
    /// All flows, sorted by [`FlowKey`].
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn flows(&self, now_ns: u64) -> Result<Vec<FlowReport>, MapsError> {
        let mut flows: Vec<_> = self.walk_flows(now_ns)?.collect();
        flows.sort_by_key(FlowReport::key);
        flows.dedup_by_key(|flow| flow.key());
        Ok(flows)
    }

    /// The flows in the order of the flow table. A flow may come twice if others end during the walk.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn walk_flows(
        &self,
        now_ns: u64,
    ) -> Result<impl Iterator<Item = FlowReport> + '_, MapsError> {
        let max_flows = self.instance()?.max_flows;
        Ok(flows(&self.v4, max_flows, now_ns).chain(flows(&self.v6, max_flows, now_ns)))
    }

    /// The number of flows of both families.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn count_flows(&self) -> Result<usize, MapsError> {
        let max_flows = self.instance()?.max_flows;
        Ok(count_flows(&self.v4, max_flows) + count_flows(&self.v6, max_flows))
    }

    /// The number of flows of a family that a full table may evict.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn count_expendable(&self, family: Family) -> Result<usize, MapsError> {
        let max_flows = self.instance()?.max_flows;
        Ok(match family {
            Family::V4 => count_expendable(&self.v4, max_flows),
            Family::V6 => count_expendable(&self.v6, max_flows),
        })
    }

    /// All rules and fallbacks in force with their counters, sorted by rule id.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn rules(&self) -> Result<Vec<RuleReport>, MapsError> {
        let config = self.config()?;
        let set = config.rules_in_force();
        let mut rules = self.rules_of(&self.v4, "RULES_V4", set)?;
        rules.extend(self.rules_of(&self.v6, "RULES_V6", set)?);
        let common = config.rule_set(set);
        let fallbacks: [IpAddr; 2] = [common.fallback_v4.into(), common.fallback_v6.into()];
        for address in fallbacks
            .into_iter()
            .filter(|address| !address.is_unspecified())
        {
            let target = Target {
                address,
                port: None,
            };
            rules.push(self.rule(common.fallback_rule, "any".to_owned(), None, target)?);
        }
        rules.sort_by_key(|rule| rule.id);
        Ok(rules)
    }

    fn rule(
        &self,
        id: u32,
        protocol: String,
        port: Option<u16>,
        destination: Target,
    ) -> Result<RuleReport, MapsError> {
        let RuleCounters { flows, traffic } = self.rule_counters(id)?.unwrap_or_default();
        Ok(RuleReport {
            id,
            protocol,
            port,
            destination,
            flows,
            original: traffic.original.into(),
            reply: traffic.reply.into(),
        })
    }

    fn rules_of<A: Address + Into<IpAddr>>(
        &self,
        maps: &FamilyMaps<A>,
        name: &'static str,
        set: u8,
    ) -> Result<Vec<RuleReport>, MapsError> {
        let mut rules = Vec::new();
        for entry in &maps.rules {
            let (key, rule) = entry.map_err(|source| MapsError::Map { name, source })?;
            if key.set != set {
                continue;
            }
            let target = Target {
                address: rule.destination.into(),
                port: Some(rule.target_port.number()),
            };
            let protocol = protocol_name(key.protocol);
            rules.push(self.rule(rule.id, protocol, Some(key.port.number()), target)?);
        }
        Ok(rules)
    }

    /// Every outcome with its counter, and unknown outcomes whose counter is not 0.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn outcomes(&self) -> Result<Vec<OutcomeReport>, MapsError> {
        let counters = (0..).zip(self.counters()?);
        Ok(counters
            .filter_map(|(number, packets)| {
                let outcome = Outcome::from_number(number).ok_or(number);
                (outcome.is_ok() || packets > 0).then(|| OutcomeReport {
                    packets,
                    ..OutcomeReport::of(outcome)
                })
            })
            .collect())
    }
}

impl OutcomeReport {
    /// Describes an outcome, or the number of an unknown one, with no packets.
    pub fn of(outcome: Result<Outcome, u32>) -> Self {
        match outcome {
            Ok(outcome) => Self {
                name: outcome.name().into(),
                verdict: match outcome.verdict() {
                    Verdict::Pass => "pass",
                    Verdict::Drop => "drop",
                    Verdict::Reject => "reject",
                },
                packets: 0,
                description: outcome.description(),
            },
            Err(number) => Self {
                name: format!("unknown_{number}").into(),
                verdict: "unknown",
                packets: 0,
                description: "An outcome that this version of the program does not know.",
            },
        }
    }
}
