//! Puts a rule table in force, in one step.
//!
//! The maps hold two rule sets. A reload fills the set that is not in force, and then switches to it by writing one
//! word. A packet sees either set in full, and an error before the switch changes nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use aya::{
    maps::{HashMap, MapData, MapError},
    programs::SchedClassifier,
};
use bytemuck::Zeroable as _;
use egress_api::RuleTable;
use egress_common::{Address, Change, Config, Port, Rule, RuleCounters, RuleKey, RuleSet, Side};
use thiserror::Error;

use super::{
    events::end_flow,
    load::{Dataplane, LoadError, classifier},
    maps::{FamilyMaps, Maps},
    maps_error::{MapsError, named},
    programs::END_FLOW,
};
use crate::net::kernel;

/// Why rules could not be put in force. The previous rules stay in force.
#[derive(Debug, Error)]
pub enum RulesError {
    /// The maps are too small.
    #[error(
        "{rules} rules are more than the {max_rules} that the maps can hold: restart the router, which keeps the flows"
    )]
    TooMany {
        /// The number of rules, including the fallbacks.
        rules: usize,
        /// The number of rules that the maps can hold.
        max_rules: u32,
    },
    /// The kernel refused a map operation.
    #[error(transparent)]
    Maps(#[from] MapsError),
}

/// What distinguishes a rule from others. A rule that differs in any of this has counters of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct RuleIdentity {
    /// Protocol and port; `None` for the fallback.
    listens: Option<(u8, u16)>,
    destination: IpAddr,
    target_port: u16,
}

/// How a reload has changed the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RulesChange {
    /// Rules that stay in force, with their counters.
    pub kept: usize,
    /// Rules that are new, or have a new destination.
    pub added: usize,
    /// Rules that were removed, or had another destination.
    pub removed: usize,
}

impl RulesChange {
    /// Whether no rule was added or removed.
    pub const fn is_empty(&self) -> bool {
        self.added == 0 && self.removed == 0
    }
}

impl Maps {
    /// The maximum number of rules, including the fallback.
    pub fn max_rules(&self) -> u32 {
        self.rule_counters_len() / 2
    }

    /// Puts a rule table in force, with its fallbacks and reserved addresses.
    ///
    /// A rule that stays in force keeps its id and counters. A new rule gets an id whose counters are 0. Both fallbacks
    /// share one id.
    ///
    /// # Errors
    ///
    /// If there are too many rules, or the kernel refuses. The previous rules then stay in force.
    pub fn apply_rules(&mut self, table: &RuleTable) -> Result<RulesChange, RulesError> {
        let wanted = identities(table);
        let max_rules = self.max_rules();
        if wanted.len() > max_rules as usize {
            return Err(RulesError::TooMany {
                rules: wanted.len(),
                max_rules,
            });
        }
        let config = self.config()?;
        let set = config.rules_in_force();
        let other = set ^ 1;
        let before = self.identities_in_force(&config)?;
        let ids = self.ids(&wanted, &before)?;
        // An interrupted reload may have left rules.
        self.clear_rules(other)?;
        if let Err(error) = self.insert_rules(other, &ids) {
            self.clear_rules(other)?;
            return Err(error.into());
        }
        let mut next = config;
        next.rule_sets[usize::from(other)] = rule_set(table, &ids);
        self.set_config(&next)?;
        next.rule_set = other.into();
        self.set_config(&next)?;
        // A program run that started before the switch may still look up the old rules.
        kernel::wait_for_running_programs();
        self.clear_rules(set)?;
        let kept = wanted.iter().filter(|it| before.contains_key(it)).count();
        Ok(RulesChange {
            kept,
            added: wanted.len() - kept,
            removed: before.len() - kept,
        })
    }

    /// The rules in force and their ids.
    fn identities_in_force(
        &self,
        config: &Config,
    ) -> Result<BTreeMap<RuleIdentity, u32>, MapsError> {
        let set = config.rules_in_force();
        let mut found = BTreeMap::new();
        named("RULES_V4", collect(&self.v4.rules, set, &mut found))?;
        named("RULES_V6", collect(&self.v6.rules, set, &mut found))?;
        let rules = config.rule_set(set);
        let fallbacks: [IpAddr; 2] = [rules.fallback_v4.into(), rules.fallback_v6.into()];
        for address in fallbacks
            .into_iter()
            .filter(|address| !address.is_unspecified())
        {
            found.insert(fallback(address), rules.fallback_rule);
        }
        Ok(found)
    }

    /// An id for each rule: its current one, or a free one.
    fn ids(
        &mut self,
        wanted: &[RuleIdentity],
        before: &BTreeMap<RuleIdentity, u32>,
    ) -> Result<BTreeMap<RuleIdentity, u32>, MapsError> {
        // The ids of rules that this reload removes are not free: packets may still be counted for them.
        let taken: BTreeSet<u32> = before.values().copied().collect();
        let mut free = (0..self.rule_counters_len()).filter(|id| !taken.contains(id));
        // Ids whose counters are not 0. Flows of an earlier rule may still count there, so they are the last resort.
        let mut used = Vec::new();
        let mut ids = BTreeMap::new();
        for rule in wanted {
            if ids.contains_key(rule) {
                continue;
            }
            let id = match before.get(rule) {
                Some(id) => *id,
                None => self.fresh_id(&mut free, &mut used)?,
            };
            ids.insert(*rule, id);
        }
        Ok(ids)
    }

    /// The next free id whose counters are 0. If there is none, resets the counters of the lowest free id.
    fn fresh_id(
        &mut self,
        free: &mut impl Iterator<Item = u32>,
        used: &mut Vec<u32>,
    ) -> Result<u32, MapsError> {
        for id in free {
            if self.rule_counters(id)?.unwrap_or_default() == RuleCounters::default() {
                return Ok(id);
            }
            used.push(id);
        }
        // There are twice as many ids as rules, so one is left.
        let id = if used.is_empty() { 0 } else { used.remove(0) };
        self.reset_rule_counters(id)?;
        Ok(id)
    }

    fn insert_rules(
        &mut self,
        set: u8,
        ids: &BTreeMap<RuleIdentity, u32>,
    ) -> Result<(), MapsError> {
        for (rule, id) in ids {
            let Some((protocol, port)) = rule.listens else {
                continue;
            };
            let key = RuleKey::new(set, protocol, Port::new(port));
            let target_port = Port::new(rule.target_port);
            match rule.destination {
                IpAddr::V4(destination) => {
                    let value = Rule::new(destination.into(), target_port, *id);
                    named("RULES_V4", self.v4.rules.insert(key, value, 0))?;
                }
                IpAddr::V6(destination) => {
                    let value = Rule::new(destination.into(), target_port, *id);
                    named("RULES_V6", self.v6.rules.insert(key, value, 0))?;
                }
            }
        }
        Ok(())
    }

    fn clear_rules(&mut self, set: u8) -> Result<(), MapsError> {
        named("RULES_V4", clear(&mut self.v4.rules, set))?;
        named("RULES_V6", clear(&mut self.v6.rules, set))
    }
}

/// The rules of a table in order, followed by the fallbacks.
fn identities(table: &RuleTable) -> Vec<RuleIdentity> {
    let rules = table.rules.iter().map(|rule| RuleIdentity {
        listens: Some((rule.protocol.number(), rule.port.get())),
        destination: rule.destination,
        target_port: rule.target_port.get(),
    });
    rules.chain(table.fallbacks().map(fallback)).collect()
}

const fn fallback(address: IpAddr) -> RuleIdentity {
    RuleIdentity {
        listens: None,
        destination: address,
        target_port: 0,
    }
}

/// The reserved addresses and fallbacks of a table, and the id of the fallbacks.
fn rule_set(table: &RuleTable, ids: &BTreeMap<RuleIdentity, u32>) -> RuleSet {
    let mut set = RuleSet::zeroed();
    if let Some(address) = table.reserved_v4 {
        set.reserved_v4 = address.into();
    }
    if let Some(address) = table.reserved_v6 {
        set.reserved_v6 = address.into();
    }
    if let Some(address) = table.fallback_v4 {
        set.fallback_v4 = address.into();
    }
    if let Some(address) = table.fallback_v6 {
        set.fallback_v6 = address.into();
    }
    if let Some(address) = table.fallbacks().next() {
        set.fallback_rule = ids.get(&fallback(address)).copied().unwrap_or_default();
    }
    set
}

fn collect<A: Address + Into<IpAddr>>(
    rules: &HashMap<MapData, RuleKey, Rule<A>>,
    set: u8,
    found: &mut BTreeMap<RuleIdentity, u32>,
) -> Result<(), MapError> {
    for entry in rules {
        let (key, rule) = entry?;
        if key.set == set {
            let identity = RuleIdentity {
                listens: Some((key.protocol, key.port.number())),
                destination: rule.destination.into(),
                target_port: rule.target_port.number(),
            };
            found.insert(identity, rule.id);
        }
    }
    Ok(())
}

fn clear<A: Address>(
    rules: &mut HashMap<MapData, RuleKey, Rule<A>>,
    set: u8,
) -> Result<(), MapError> {
    let keys = rules.keys().collect::<Result<Vec<_>, _>>()?;
    keys.iter()
        .filter(|key| key.set == set)
        .try_for_each(|key| rules.remove(key))
}

impl Dataplane {
    /// Ends the flows whose rule or reserved address is no longer in force. Returns the number of flows that it ended.
    ///
    /// The next packet of either peer goes to the pod's own stack, which answers TCP with a RST.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn end_flows_without_rule(&mut self) -> Result<u64, LoadError> {
        let config = self.maps.config()?;
        let rules = *config.rule_set(config.rules_in_force());
        let ids: BTreeSet<u32> = self
            .maps
            .identities_in_force(&config)?
            .into_values()
            .collect();
        let max_flows = self.maps.instance()?.max_flows;
        let program = classifier(&mut self.ebpf, END_FLOW)?;
        let v4 = end_flows(&self.maps.v4, program, max_flows, &ids, rules.reserved_v4)?;
        let v6 = end_flows(&self.maps.v6, program, max_flows, &ids, rules.reserved_v6)?;
        Ok(v4 + v6)
    }
}

fn end_flows<A: Address>(
    maps: &FamilyMaps<A>,
    program: &mut SchedClassifier,
    max_flows: u32,
    ids: &BTreeSet<u32>,
    reserved: A,
) -> Result<u64, LoadError> {
    // The kernel restarts the walk if the current key was deleted in the meantime, so entries may come twice.
    let limit = 4 * max_flows as usize;
    // An entry that is deleted during the walk needs no further action.
    let entries = maps.flows.iter().take(limit).filter_map(Result::ok);
    let without_rule: Vec<_> = entries
        .filter(|(tuple, flow)| {
            tuple.side() == Some(Side::Cluster)
                && (!ids.contains(&flow.rule) || flow.translation.addresses.source != reserved)
        })
        .collect();
    let mut ended = 0;
    for (tuple, flow) in &without_rule {
        ended += u64::from(end_flow(program, tuple, flow, Change::RuleChanged)?);
    }
    Ok(ended)
}
