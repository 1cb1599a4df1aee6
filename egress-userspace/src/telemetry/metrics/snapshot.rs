//! What the router has to say of itself at one moment.

use std::time::{SystemTime, UNIX_EPOCH};

use egress_common::{Address as _, Config, InstanceInfo, protocol};

use super::{
    census::Census,
    encode::{Encoder, Format},
    registry,
    state::RunState,
};
use crate::dataplane::{Maps, MapsError, OutcomeReport, RuleReport, TrafficReport};

const SIDES: [&str; 2] = ["cluster", "egress"];

/// What the maps and the run loop say, apart from what is in the flow table.
#[derive(Clone, Debug)]
pub struct Snapshot {
    state: RunState,
    config: Config,
    instance: InstanceInfo,
    rules: Vec<RuleReport>,
    outcomes: Vec<OutcomeReport>,
    evicted: u64,
}

impl Snapshot {
    /// Reads the maps.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn take(maps: &Maps, state: &RunState) -> Result<Self, MapsError> {
        Ok(Self {
            state: state.clone(),
            config: maps.config()?,
            instance: maps.instance()?,
            rules: maps.rules()?,
            outcomes: maps.outcomes()?,
            evicted: maps.count_evicted()?,
        })
    }

    /// The whole text of a scrape.
    pub(super) fn encode(&self, census: Option<&Census>, format: Format) -> String {
        let mut encoder = Encoder::new(format);
        self.process(&mut encoder);
        self.traffic(&mut encoder);
        self.flows(&mut encoder, census);
        self.reloads(&mut encoder);
        self.network(&mut encoder);
        encoder.finish()
    }

    fn process(&self, encoder: &mut Encoder) {
        encoder.family(&registry::BUILD).sample(
            &[
                &env!("CARGO_PKG_VERSION"),
                &self.instance.identity.layout_version,
            ],
            1,
        );
        encoder.single(&registry::START_TIME, seconds(self.state.started));
        encoder.single(&registry::ATTACHED, u8::from(self.state.attached));
    }

    fn traffic(&self, encoder: &mut Encoder) {
        let mut directed = |metric, value: fn(&TrafficReport) -> u64| {
            let mut samples = encoder.family(metric);
            for rule in &self.rules {
                let (port, target) = (port(rule), rule.destination);
                for (direction, traffic) in [("original", &rule.original), ("reply", &rule.reply)] {
                    let labels: [&dyn std::fmt::Display; 5] =
                        [&rule.id, &port, &rule.protocol, &target, &direction];
                    samples.sample(&labels, value(traffic));
                }
            }
        };
        directed(&registry::PACKETS, |traffic| traffic.packets);
        directed(&registry::BYTES, |traffic| traffic.bytes);
        let mut opened = encoder.family(&registry::FLOWS_OPENED);
        for rule in &self.rules {
            let labels: [&dyn std::fmt::Display; 4] =
                [&rule.id, &port(rule), &rule.protocol, &rule.destination];
            opened.sample(&labels, rule.flows);
        }
        let mut outcomes = encoder.family(&registry::OUTCOMES);
        for outcome in &self.outcomes {
            outcomes.sample(&[&outcome.name, &outcome.verdict], outcome.packets);
        }
    }

    /// Of the families that have a reserved address: the others have no flows.
    fn flows(&self, encoder: &mut Encoder, census: Option<&Census>) {
        let rules = self.config.rule_set(self.config.rules_in_force());
        let families = [
            ("ipv4", !rules.reserved_v4.is_unspecified()),
            ("ipv6", !rules.reserved_v6.is_unspecified()),
        ];
        let used = |index: usize| families[index].1;
        let mut flows = encoder.family(&registry::FLOWS);
        for index in (0..2).filter(|index| used(*index)) {
            if let Some(census) = census {
                flows.sample(&[&families[index].0], census.flows[index]);
            }
        }
        let mut max_flows = encoder.family(&registry::MAX_FLOWS);
        for index in (0..2).filter(|index| used(*index)) {
            max_flows.sample(&[&families[index].0], self.instance.max_flows);
        }
        encoder.single(&registry::FLOWS_EVICTED, self.evicted);
        encoder.single(&registry::NAT_PORTS, self.config.nat_range.len());
        let Some(census) = census else { return };
        let mut ports = encoder.family(&registry::NAT_PORTS_USED);
        for (destination, count) in &census.busiest {
            let name = protocol::name(destination.protocol).unwrap_or("other");
            ports.sample(&[&destination.server, &destination.port, &name], count);
        }
        encoder.single(&registry::NAT_DESTINATIONS, census.destinations);
        encoder.single(&registry::FLOWS_COUNTED, seconds(census.taken));
    }

    fn reloads(&self, encoder: &mut Encoder) {
        let reloads = &self.state.reloads;
        encoder
            .family(&registry::RELOADS)
            .sample(&[&"applied"], reloads.applied)
            .sample(&[&"refused"], reloads.refused);
        let successful = u8::from(reloads.last_error.is_none());
        encoder.single(&registry::RELOAD_SUCCESSFUL, successful);
        encoder.single(
            &registry::RELOAD_SUCCESS_TIME,
            seconds(reloads.last_applied),
        );
    }

    fn network(&self, encoder: &mut Encoder) {
        let mut next_hops = encoder.family(&registry::NEXT_HOPS);
        for (side, neighbours) in SIDES.iter().zip(self.state.next_hops) {
            next_hops.sample(&[side, &"good"], neighbours.good);
            next_hops.sample(&[side, &"unresolved"], neighbours.unresolved);
        }
        let mut mtus = encoder.family(&registry::INTERFACE_MTU);
        let RunState {
            cluster, egress, ..
        } = &self.state;
        let Config {
            cluster_mtu,
            egress_mtu,
            ..
        } = self.config;
        mtus.sample(&[&SIDES[0], &cluster.name], cluster_mtu);
        mtus.sample(&[&SIDES[1], &egress.name], egress_mtu);
    }
}

/// The port that clients connect to, as a label.
fn port(rule: &RuleReport) -> String {
    rule.port
        .map_or_else(|| "any".to_owned(), |port| port.to_string())
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}
