//! The values of the metrics at one moment.

use std::sync::Arc;

use egress_common::{Address as _, Config, InstanceInfo};

use super::{flow_counts::FlowCounts, state::RunState};
use crate::dataplane::{Maps, MapsError, OutcomeReport, RuleReport};

/// Values from the maps and the run loop.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub state: RunState,
    pub config: Config,
    pub instance: InstanceInfo,
    pub rules: Vec<RuleReport>,
    pub outcomes: Vec<OutcomeReport>,
    pub evicted: u64,
    /// `None` until the flow table has been walked once.
    pub flow_counts: Option<Arc<FlowCounts>>,
}

impl Snapshot {
    /// Reads the maps, apart from the flow table.
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
            flow_counts: None,
        })
    }

    /// The index and name of each address family with a reserved address. The others have no flows.
    pub fn families(&self) -> impl Iterator<Item = (usize, &'static str)> {
        let rules = self.config.rule_set(self.config.rules_in_force());
        [
            ("ipv4", !rules.reserved_v4.is_unspecified()),
            ("ipv6", !rules.reserved_v6.is_unspecified()),
        ]
        .into_iter()
        .enumerate()
        .filter_map(|(index, (name, is_used))| is_used.then_some((index, name)))
    }
}
