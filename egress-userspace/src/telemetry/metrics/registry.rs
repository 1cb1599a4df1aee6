//! Every metric that there is: the one list of names, which the encoder, the documentation's test and those of the
//! dashboard and the alerts go by.

/// What a metric's values mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows while the maps live.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Always 1: the labels are what it says.
    Info,
}

/// A metric.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// The name without the suffix that its kind has.
    family: &'static str,
    /// What its values mean.
    pub kind: Kind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// A sentence for people.
    pub help: &'static str,
}

impl Metric {
    /// The name of the family, as `OpenMetrics` 1.0 wants it: without the suffix of the samples.
    pub const fn family(&self) -> &'static str {
        self.family
    }

    /// The suffix of the samples' name.
    pub const fn suffix(&self) -> &'static str {
        match self.kind {
            Kind::Counter => "_total",
            Kind::Gauge => "",
            Kind::Info => "_info",
        }
    }

    /// The name that a query uses.
    pub fn name(&self) -> String {
        format!("{}{}", self.family, self.suffix())
    }
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $constant:ident = $kind:ident $family:literal [$($label:literal),*];)+) => {
        $(
            $(#[doc = $help])+
            pub static $constant: Metric = Metric {
                family: concat!("egress_router_", $family),
                kind: Kind::$kind,
                labels: &[$($label),*],
                help: concat!($($help),+).trim_ascii(),
            };
        )+

        /// Every metric, in the order of the output.
        pub static ALL: &[&Metric] = &[$(&$constant),+];
    };
}

metrics! {
    /// The version of the program and of the layout of its maps.
    BUILD = Info "build" ["version", "layout"];
    /// When the process was started, in seconds since 1970.
    START_TIME = Gauge "start_time_seconds" [];
    /// Whether the kernel half is attached to both interfaces.
    ATTACHED = Gauge "attached" [];
    /// Packets that a rule's flows have carried, as they are on the wire.
    PACKETS = Counter "packets" ["rule", "port", "protocol", "destination", "direction"];
    /// Bytes of the IP packets that a rule's flows have carried.
    BYTES = Counter "bytes" ["rule", "port", "protocol", "destination", "direction"];
    /// Flows that a rule has opened.
    FLOWS_OPENED = Counter "flows_opened" ["rule", "port", "protocol", "destination"];
    /// Packets that were not forwarded, by reason.
    OUTCOMES = Counter "outcomes" ["outcome", "verdict"];
    /// Flows that are in the table, as of the last count.
    FLOWS = Gauge "flows" ["family"];
    /// Flows that the table has room for.
    MAX_FLOWS = Gauge "max_flows" ["family"];
    /// Flows that were ended early to make room for others.
    FLOWS_EVICTED = Counter "flows_evicted" [];
    /// Ports of the NAT range: so many flows can there be to one server, port and protocol.
    NAT_PORTS = Gauge "nat_ports" [];
    /// NAT ports in use towards a server, for the 50 with the most, as of the last count.
    NAT_PORTS_USED = Gauge "nat_ports_used" ["server", "port", "protocol"];
    /// Servers, ports and protocols that have flows, as of the last count.
    NAT_DESTINATIONS = Gauge "nat_destinations" [];
    /// When flows and NAT ports were counted last, in seconds since 1970.
    FLOWS_COUNTED = Gauge "flows_counted_timestamp_seconds" [];
    /// Changes of the config while the router was running.
    RELOADS = Counter "reloads" ["result"];
    /// Whether the config was applied when it was last read.
    RELOAD_SUCCESSFUL = Gauge "config_last_reload_successful" [];
    /// When a config was applied last, in seconds since 1970.
    RELOAD_SUCCESS_TIME = Gauge "config_last_reload_success_timestamp_seconds" [];
    /// Next hops in use, and whether the kernel knows their MAC address.
    NEXT_HOPS = Gauge "next_hops" ["side", "state"];
    /// The largest IP packet that an interface carries.
    INTERFACE_MTU = Gauge "interface_mtu_bytes" ["side", "interface"];
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_as_prometheus_wants_them() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name()).collect();
        assert_eq!(names.len(), ALL.len());
        for metric in ALL {
            let plain = |text: &str| {
                text.bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_')
            };
            assert!(plain(metric.family()), "{metric:?}");
            assert!(metric.labels.iter().all(|label| plain(label)), "{metric:?}");
            assert!(!metric.family().ends_with("_total"), "{metric:?}");
            assert!(metric.help.ends_with('.'), "{metric:?}");
        }
    }
}
