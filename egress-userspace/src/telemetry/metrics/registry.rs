//! The list of all metrics and the sources of their values. Tests compare the documentation, the dashboard and the
//! alerts with it.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use egress_common::protocol;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, text},
    metrics::MetricType,
    registry::Registry,
};

pub use super::encode::Metric;
use super::{
    encode::{Format, Samples},
    snapshot::Snapshot,
};
use crate::dataplane::{RuleReport, TrafficReport};

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $kind:ident $name:literal [$($label:literal),*] = $collect:expr;)+) => {
        /// Every metric, in the order of the output.
        pub static ALL: &[Metric] = &[$(Metric {
            name: concat!("egress_router_", $name),
            kind: MetricType::$kind,
            labels: &[$($label),*],
            help: concat!($($help),+).trim_ascii(),
            collect: $collect,
        }),+];
    };
}

metrics! {
    /// The version of the program and of the layout of its maps.
    Info "build_info" ["version", "layout"] = |now, samples| {
        samples.add(&[&env!("CARGO_PKG_VERSION"), &now.instance.identity.layout_version], 1_u32)
    };
    /// When the process was started, in seconds since 1970.
    Gauge "start_time_seconds" [] = |now, samples| samples.add(&[], seconds(now.state.started));
    /// Whether the kernel half is attached to both interfaces.
    Gauge "attached" [] = |now, samples| samples.add(&[], u32::from(now.state.attached));
    /// Packets that a rule's flows have carried, as they are on the wire.
    Counter "packets_total" ["rule", "port", "protocol", "destination", "direction"] =
        |now, samples| by_direction(now, samples, |traffic| traffic.packets);
    /// Bytes of the IP packets that a rule's flows have carried.
    Counter "bytes_total" ["rule", "port", "protocol", "destination", "direction"] =
        |now, samples| by_direction(now, samples, |traffic| traffic.bytes);
    /// Flows that a rule has opened.
    Counter "flows_opened_total" ["rule", "port", "protocol", "destination"] = |now, samples| {
        now.rules.iter().try_for_each(|rule| {
            samples.add(&[&rule.id, &port(rule), &rule.protocol, &rule.destination], rule.flows)
        })
    };
    /// Packets that were not forwarded, by reason.
    Counter "outcomes_total" ["outcome", "verdict"] = |now, samples| {
        now.outcomes.iter().try_for_each(|outcome| {
            samples.add(&[&outcome.name, &outcome.verdict], outcome.packets)
        })
    };
    /// Flows that are in the table, as of the last count.
    Gauge "flows" ["family"] = |now, samples| {
        now.flow_counts.iter().try_for_each(|counts| {
            now.families().try_for_each(|(index, name)| samples.add(&[&name], counts.flows[index]))
        })
    };
    /// Flows that the table has room for.
    Gauge "max_flows" ["family"] = |now, samples| {
        now.families().try_for_each(|(_, name)| samples.add(&[&name], now.instance.max_flows))
    };
    /// Flows that were ended early to make room for others.
    Counter "flows_evicted_total" [] = |now, samples| samples.add(&[], now.evicted);
    /// Ports of the NAT range: so many flows can there be to one server, port and protocol.
    Gauge "nat_ports" [] = |now, samples| samples.add(&[], now.config.nat_range.len());
    /// NAT ports in use towards a server, for the 50 with the most, as of the last count.
    Gauge "nat_ports_used" ["server", "port", "protocol"] = |now, samples| {
        let busiest = now.flow_counts.iter().flat_map(|counts| &counts.busiest);
        busiest.into_iter().try_for_each(|(destination, count)| {
            let protocol = protocol::name(destination.protocol).unwrap_or("other");
            samples.add(&[&destination.server, &destination.port, &protocol], *count)
        })
    };
    /// Servers, ports and protocols that have flows, as of the last count.
    Gauge "nat_destinations" [] = |now, samples| {
        now.flow_counts.iter().try_for_each(|counts| samples.add(&[], counts.destinations))
    };
    /// When flows and NAT ports were counted last, in seconds since 1970.
    Gauge "flows_counted_timestamp_seconds" [] = |now, samples| {
        now.flow_counts.iter().try_for_each(|counts| samples.add(&[], seconds(counts.taken)))
    };
    /// Changes of the config while the router was running.
    Counter "reloads_total" ["result"] = |now, samples| {
        samples.add(&[&"applied"], now.state.reloads.applied)?;
        samples.add(&[&"refused"], now.state.reloads.refused)
    };
    /// Whether the config was applied when it was last read.
    Gauge "config_last_reload_successful" [] = |now, samples| {
        samples.add(&[], u32::from(now.state.reloads.last_error.is_none()))
    };
    /// When a config was applied last, in seconds since 1970.
    Gauge "config_last_reload_success_timestamp_seconds" [] = |now, samples| {
        samples.add(&[], seconds(now.state.reloads.last_applied))
    };
    /// Next hops in use, and whether the kernel knows their MAC address.
    Gauge "next_hops" ["side", "state"] = |now, samples| {
        SIDES.iter().zip(now.state.next_hops).try_for_each(|(side, counts)| {
            samples.add(&[side, &"good"], counts.good)?;
            samples.add(&[side, &"unresolved"], counts.unresolved)
        })
    };
    /// The largest IP packet that an interface carries.
    Gauge "interface_mtu_bytes" ["side", "interface"] = |now, samples| {
        samples.add(&[&SIDES[0], &now.state.cluster.name], now.config.cluster_mtu)?;
        samples.add(&[&SIDES[1], &now.state.egress.name], now.config.egress_mtu)
    };
}

/// The text of all metrics.
pub(super) fn encode(snapshot: Snapshot, format: Format) -> Result<String, fmt::Error> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exposition { snapshot, format }));
    let mut text = String::with_capacity(16 * 1024);
    match format {
        Format::OpenMetrics => text::encode(&mut text, &registry),
        Format::Text => text::encode_registry(&mut text, &registry),
    }?;
    Ok(text)
}

#[derive(Debug)]
struct Exposition {
    snapshot: Snapshot,
    format: Format,
}

impl Collector for Exposition {
    fn encode(&self, mut descriptors: DescriptorEncoder<'_>) -> fmt::Result {
        ALL.iter().try_for_each(|metric| {
            let mut samples = Samples::begin(&mut descriptors, metric, self.format)?;
            (metric.collect)(&self.snapshot, &mut samples)
        })
    }
}

const SIDES: [&str; 2] = ["cluster", "egress"];

fn by_direction(
    now: &Snapshot,
    samples: &mut Samples<'_>,
    value: fn(&TrafficReport) -> u64,
) -> fmt::Result {
    now.rules.iter().try_for_each(|rule| {
        [("original", &rule.original), ("reply", &rule.reply)]
            .into_iter()
            .try_for_each(|(direction, traffic)| {
                let (port, target) = (port(rule), rule.destination);
                let labels: [&dyn fmt::Display; 5] =
                    [&rule.id, &port, &rule.protocol, &target, &direction];
                samples.add(&labels, value(traffic))
            })
    })
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_follow_prometheus_conventions() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            let plain = |text: &str| {
                text.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            };
            assert!(plain(metric.name), "{metric:?}");
            assert!(metric.labels.iter().all(|label| plain(label)), "{metric:?}");
            let has_suffix = ["_total", "_info"]
                .iter()
                .any(|it| metric.name.ends_with(it));
            assert_eq!(has_suffix, metric.family() != metric.name, "{metric:?}");
            assert!(metric.help.ends_with('.'), "{metric:?}");
        }
    }
}
