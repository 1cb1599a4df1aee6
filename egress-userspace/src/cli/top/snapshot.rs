//! The state of the router at one moment.

use std::time::Duration;

use crate::{
    dataplane::{FlowReport, Instance, OutcomeReport, RuleReport},
    net::kernel,
};

use super::super::status::Router;

/// The limit of flows in a snapshot. Each takes a few system calls at every refresh.
pub const FLOWS: usize = 20_000;

/// Everything that is shown, as absolute counters.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The time of `CLOCK_MONOTONIC`.
    pub taken: Duration,
    /// When the dataplane was started, which tells it from another one.
    pub started_ns: u64,
    pub router: Router,
    pub rules: Vec<RuleReport>,
    pub outcomes: Vec<OutcomeReport>,
    /// At most [`FLOWS`], in the order of the table.
    pub flows: Vec<FlowReport>,
    /// Whether `flows` has all flows.
    pub has_all_flows: bool,
}

impl Snapshot {
    /// Reads the router's maps.
    pub fn take(instance: &Instance) -> anyhow::Result<Self> {
        let now_ns = kernel::monotonic_ns();
        let (rules, outcomes) = (instance.maps.rules()?, instance.maps.outcomes()?);
        let mut walk = instance.maps.walk_flows(now_ns)?;
        let flows: Vec<_> = walk.by_ref().take(FLOWS).collect();
        let has_all_flows = flows.len() < FLOWS || walk.next().is_none();
        Ok(Self {
            taken: Duration::from_nanos(now_ns),
            started_ns: instance.info.identity.started_ns,
            router: Router::of(instance, now_ns)?,
            rules,
            outcomes,
            flows,
            has_all_flows,
        })
    }
}
