//! Examples of snapshots for tests.

use std::time::Duration;

use super::{
    super::{
        flows, rules,
        status::{Reloads, Router},
    },
    snapshot::Snapshot,
};
use crate::dataplane::{AttachMode, FlowReport, OutcomeReport, RuleReport, Target, TrafficReport};

pub fn traffic(packets: u64, bytes: u64) -> TrafficReport {
    TrafficReport { packets, bytes }
}

/// A flow from this client port. The client has sent `packets` of 1000 bytes each.
pub fn flow(port: u16, packets: u64) -> FlowReport {
    FlowReport {
        age_seconds: 60,
        original: traffic(packets, packets * 1000),
        ..flows::order::tests::flow(port)
    }
}

/// A rule that has opened `flows`. In each, the client has sent ten packets of 1000 bytes, and the server one.
pub fn rule(id: u32, flows: u64) -> RuleReport {
    RuleReport {
        destination: Target {
            address: "203.0.113.26".parse().unwrap(),
            port: Some(80),
        },
        flows,
        original: traffic(flows * 10, flows * 10_000),
        reply: traffic(flows, flows * 1000),
        ..rules::print::tests::rule(id, Some(8080), 0)
    }
}

pub fn outcome(name: &'static str, packets: u64) -> OutcomeReport {
    OutcomeReport {
        name: name.into(),
        verdict: "drop",
        packets,
        description: "an example of a packet that was not forwarded, with words that say why it was not",
    }
}

/// A snapshot, taken `seconds` after the router was started.
pub fn snapshot(seconds: u64) -> Snapshot {
    Snapshot {
        taken: Duration::from_secs(1000 + seconds),
        started_ns: 1_000_000_000_000,
        router: Router {
            pid: 4711,
            process_running: true,
            uptime_seconds: seconds,
            attached: AttachMode::Tcx,
            cluster_interface: "eth0".to_owned(),
            egress_interface: "net1".to_owned(),
            max_flows: 131_072,
            flows_evicted: 0,
            reloads: Reloads {
                applied: 1,
                refused: 0,
                rules_age_seconds: seconds,
                error: None,
            },
        },
        rules: vec![rule(0, 0)],
        outcomes: vec![outcome("fragment", 0)],
        flows: Vec::new(),
        has_all_flows: true,
    }
}
