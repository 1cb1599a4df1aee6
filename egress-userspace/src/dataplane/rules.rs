//! Putting a rule table in force, as a whole.
//!
//! The maps have room for two sets of rules. The new one is filled in beside the one in force, which one word then
//! replaces; so packets see either, and an error half-way leaves everything as it was.

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

/// Why rules could not be put in force. Those before are still.
#[derive(Debug, Error)]
pub enum RulesError {
    /// There are too many.
    #[error(
        "{rules} rules are more than the {room} that there is room for: start the router anew, which keeps the flows"
    )]
    TooMany {
        /// How many there are, the fallbacks among them.
        rules: usize,
        /// How many there is room for.
        room: u32,
    },
    /// The kernel refused.
    #[error(transparent)]
    Maps(#[from] MapsError),
}

/// What tells a rule from another: one of which any of this differs is counted by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Identity {
    /// Protocol and port; none for the fallback.
    listens: Option<(u8, u16)>,
    destination: IpAddr,
    target_port: u16,
}

/// What a change of the rules has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RulesChange {
    /// Rules that are in force as before, and go on counting.
    pub kept: usize,
    /// Rules that are new, or go elsewhere than before.
    pub added: usize,
    /// Rules that are gone, or go elsewhere now.
    pub removed: usize,
}

impl RulesChange {
    /// Whether everything is as it was.
    pub const fn is_empty(&self) -> bool {
        self.added == 0 && self.removed == 0
    }
}

impl Maps {
    /// How many rules there is room for, the fallback among them.
    pub fn room_for_rules(&self) -> u32 {
        self.rule_counters_len() / 2
    }

    /// Puts a rule table in force, with its fallbacks and reserved addresses.
    ///
    /// A rule that was in force before keeps its id, and with it its counters. The others get ids whose counters are at 0.
    /// The fallbacks of both families share one id.
    ///
    /// # Errors
    ///
    /// If there are too many, or the kernel refuses. Then the rules are as before.
    pub fn apply_rules(&mut self, table: &RuleTable) -> Result<RulesChange, RulesError> {
        let wanted = identities(table);
        let room = self.room_for_rules();
        if wanted.len() > room as usize {
            return Err(RulesError::TooMany {
                rules: wanted.len(),
                room,
            });
        }
        let config = self.config()?;
        let set = config.rules_in_force();
        let other = set ^ 1;
        let before = self.identities_in_force(&config)?;
        let ids = self.ids(&wanted, &before)?;
        // What a change that was interrupted may have left.
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
        // A program that runs since before may still look for the old ones.
        kernel::wait_for_running_programs();
        self.clear_rules(set)?;
        let kept = wanted.iter().filter(|it| before.contains_key(it)).count();
        Ok(RulesChange {
            kept,
            added: wanted.len() - kept,
            removed: before.len() - kept,
        })
    }

    /// The rules in force, each with its id.
    fn identities_in_force(&self, config: &Config) -> Result<BTreeMap<Identity, u32>, MapsError> {
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

    /// An id for each rule: the one that it has, or one that is free.
    fn ids(
        &mut self,
        wanted: &[Identity],
        before: &BTreeMap<Identity, u32>,
    ) -> Result<BTreeMap<Identity, u32>, MapsError> {
        // Those of rules that go now are not free yet: their last packets are still to be counted.
        let taken: BTreeSet<u32> = before.values().copied().collect();
        let mut free = (0..self.rule_counters_len()).filter(|id| !taken.contains(id));
        // Numbers that flows of a rule before it may still be counted by, and that come last.
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

    /// The next id whose counters are at 0. Where there is none left, the lowest one begins anew.
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
        // There are twice as many counters as rules, so that one is left.
        let id = if used.is_empty() { 0 } else { used.remove(0) };
        self.reset_rule_counters(id)?;
        Ok(id)
    }

    fn insert_rules(&mut self, set: u8, ids: &BTreeMap<Identity, u32>) -> Result<(), MapsError> {
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

/// The rules of a table in its order, and the fallbacks.
fn identities(table: &RuleTable) -> Vec<Identity> {
    let rules = table.rules.iter().map(|rule| Identity {
        listens: Some((rule.protocol.number(), rule.port.get())),
        destination: rule.destination,
        target_port: rule.target_port.get(),
    });
    rules.chain(table.fallbacks().map(fallback)).collect()
}

const fn fallback(address: IpAddr) -> Identity {
    Identity {
        listens: None,
        destination: address,
        target_port: 0,
    }
}

/// What the rules of a table have in common.
fn rule_set(table: &RuleTable, ids: &BTreeMap<Identity, u32>) -> RuleSet {
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
    found: &mut BTreeMap<Identity, u32>,
) -> Result<(), MapError> {
    for entry in rules {
        let (key, rule) = entry?;
        if key.set == set {
            let identity = Identity {
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
    /// Ends the flows whose rule is not in force any more, or whose reserved address is not. How many those were.
    ///
    /// What either end sends next meets the pod's own stack, which refuses TCP by a RST.
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
    // The kernel begins anew when the entry that it stands on has gone, so some may be met again.
    let limit = 4 * max_flows as usize;
    // A key that vanishes while the table is read is one less to care for.
    let entries = maps.flows.iter().take(limit).filter_map(Result::ok);
    let without: Vec<_> = entries
        .filter(|(tuple, flow)| {
            tuple.side() == Some(Side::Cluster)
                && (!ids.contains(&flow.rule) || flow.translation.addresses.source != reserved)
        })
        .collect();
    let mut ended = 0;
    for (tuple, flow) in &without {
        ended += u64::from(end_flow(program, tuple, flow, Change::RuleChanged)?);
    }
    Ok(ended)
}
