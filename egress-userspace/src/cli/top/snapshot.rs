//! What the router says at one moment.

use std::time::Duration;

use serde::Serialize;

use super::super::status::{Reloads, interface_name};
use crate::{
    dataplane::{AttachMode, FlowReport, Instance, OutcomeReport, RuleReport},
    net::kernel,
};

/// At most so many flows are looked at: each takes a few system calls, and that for every refresh.
pub const FLOWS: usize = 20_000;

/// The router itself.
#[derive(Clone, Debug, Serialize)]
pub struct Router {
    pub pid: u32,
    /// Whether the process that started the router is still there; the dataplane may go on without.
    pub process_running: bool,
    pub uptime_seconds: u64,
    pub attached: AttachMode,
    pub cluster_interface: String,
    pub egress_interface: String,
    /// How many flows the table of a family holds at most.
    pub max_flows: u32,
    /// Flows that were ended to make room for others.
    pub flows_evicted: u64,
    /// How changes of the spec went since the dataplane was started.
    pub reloads: Reloads,
}

/// Everything that is shown, as counters.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When: `CLOCK_MONOTONIC`.
    pub taken: Duration,
    /// When the dataplane was started: another one has other counters.
    pub started_ns: u64,
    pub router: Router,
    pub rules: Vec<RuleReport>,
    pub outcomes: Vec<OutcomeReport>,
    /// At most [`FLOWS`], as the table has them.
    pub flows: Vec<FlowReport>,
    /// Whether those are all.
    pub has_all_flows: bool,
}

impl Snapshot {
    /// Looks at the router.
    pub fn take(instance: &Instance) -> anyhow::Result<Self> {
        let info = &instance.info;
        let now_ns = kernel::monotonic_ns();
        let (rules, outcomes) = (instance.maps.rules()?, instance.maps.outcomes()?);
        let mut walk = instance.maps.walk_flows(now_ns)?;
        let flows: Vec<_> = walk.by_ref().take(FLOWS).collect();
        let has_all_flows = flows.len() < FLOWS || walk.next().is_none();
        Ok(Self {
            taken: Duration::from_nanos(now_ns),
            started_ns: info.identity.started_ns,
            router: Router {
                pid: info.identity.pid,
                process_running: instance.is_running(),
                uptime_seconds: now_ns.saturating_sub(info.identity.started_ns) / 1_000_000_000,
                attached: instance.attach_mode(),
                cluster_interface: interface_name(info.identity.cluster_ifindex),
                egress_interface: interface_name(info.identity.egress_ifindex),
                max_flows: info.max_flows,
                flows_evicted: instance.maps.count_evicted()?,
                reloads: (&info.reloads).into(),
            },
            rules,
            outcomes,
            flows,
            has_all_flows,
        })
    }
}
