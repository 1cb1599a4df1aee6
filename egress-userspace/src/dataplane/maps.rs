//! Typed handles of the kernel half's maps, under the names that `bpftool map` shows.

use std::{collections::BTreeSet, net::IpAddr};

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues},
    util::nr_cpus,
};
use bytemuck::Zeroable as _;
use egress_common::{
    Address, AddressKey, Config, Flow, InstanceInfo, Ipv4Address, Ipv6Address, NextHop, NextHopRef,
    Outcome, Rule, RuleCounters, RuleKey, Side, Subscriber, Tuple,
};

use super::maps_error::{MapsError, named};
use super::subscribers::{NamedMap, SubscriberMaps, Subscription};

/// The maps of one address family.
pub struct FamilyMaps<A: Address> {
    /// The rules.
    pub rules: HashMap<MapData, RuleKey, Rule<A>>,
    /// The flow table, with two entries for each flow.
    pub flows: HashMap<MapData, Tuple<A>, Flow<A>>,
    /// The set of addresses of both interfaces. The values have no meaning.
    pub addresses: HashMap<MapData, AddressKey<A>, u32>,
    /// The next hops towards clients and servers.
    routes: HashMap<MapData, AddressKey<A>, NextHopRef>,
    /// The clients and servers whose next hop the kernel half does not know.
    unresolved: HashMap<MapData, AddressKey<A>, u64>,
}

/// All maps.
pub struct Maps {
    /// IPv4.
    pub v4: FamilyMaps<Ipv4Address>,
    /// IPv6.
    pub v6: FamilyMaps<Ipv6Address>,
    config: Array<MapData, Config>,
    instance: Array<MapData, InstanceInfo>,
    counters: PerCpuArray<MapData, u64>,
    rule_counters: PerCpuArray<MapData, RuleCounters>,
    evicted: PerCpuArray<MapData, u64>,
    next_hops: Array<MapData, NextHop>,
    subscribers: SubscriberMaps,
}

impl Maps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, MapsError> {
        Self::from_source(|name| ebpf.take_map(name).map(Ok))
    }

    /// Opens all maps. `source` returns a map by its name, or `None` if it has no such map.
    pub(super) fn from_source(
        mut source: impl FnMut(&'static str) -> Option<Result<Map, MapError>>,
    ) -> Result<Self, MapsError> {
        fn typed<T: TryFrom<Map, Error = MapError>>(
            name: &'static str,
            source: &mut impl FnMut(&'static str) -> Option<Result<Map, MapError>>,
        ) -> Result<T, MapsError> {
            let map = named(name, source(name).ok_or(MapsError::Missing(name))?)?;
            named(name, T::try_from(map))
        }
        Ok(Self {
            v4: FamilyMaps {
                rules: typed("RULES_V4", &mut source)?,
                flows: typed("FLOWS_V4", &mut source)?,
                addresses: typed("ADDRESSES_V4", &mut source)?,
                routes: typed("ROUTES_V4", &mut source)?,
                unresolved: typed("UNRESOLVED_V4", &mut source)?,
            },
            v6: FamilyMaps {
                rules: typed("RULES_V6", &mut source)?,
                flows: typed("FLOWS_V6", &mut source)?,
                addresses: typed("ADDRESSES_V6", &mut source)?,
                routes: typed("ROUTES_V6", &mut source)?,
                unresolved: typed("UNRESOLVED_V6", &mut source)?,
            },
            config: typed("CONFIG", &mut source)?,
            instance: typed("INSTANCE", &mut source)?,
            counters: typed("COUNTERS", &mut source)?,
            rule_counters: typed("RULE_COUNTERS", &mut source)?,
            evicted: typed("EVICTED", &mut source)?,
            next_hops: typed("NEXT_HOPS", &mut source)?,
            subscribers: {
                let mut subscriber_map = |name| {
                    let map = named(name, source(name).ok_or(MapsError::Missing(name))?)?;
                    NamedMap::new(name, map)
                };
                SubscriberMaps {
                    leases: subscriber_map("SUBSCRIBERS")?,
                    lost: subscriber_map("EVENTS_LOST")?,
                    rings: [
                        subscriber_map("FLOW_LOG")?,
                        subscriber_map("FOLLOW")?,
                        subscriber_map("TRACE")?,
                    ],
                    filter: subscriber_map("TRACE_FILTER")?,
                }
            },
        })
    }

    /// Opens the maps of a subscriber.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn subscribe(&self, subscriber: Subscriber) -> Result<Subscription, MapsError> {
        self.subscribers.open(subscriber)
    }

    /// Reads the settings.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn config(&self) -> Result<Config, MapsError> {
        named("CONFIG", self.config.get(&0, 0))
    }

    /// Clears the identity and the settings. The kernel frees a program some time after it was detached. Until then, a
    /// search for routers would find this dataplane.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn retire(&mut self) -> Result<(), MapsError> {
        let retired = Config {
            // Rules still match the last packets: the pod's stack would answer them with a refusal.
            rule_set: self.config()?.rule_set,
            ..Config::zeroed()
        };
        self.set_instance(&InstanceInfo::zeroed())?;
        self.set_config(&retired)
    }

    /// Reads the identity and what the process stores with it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn instance(&self) -> Result<InstanceInfo, MapsError> {
        named("INSTANCE", self.instance.get(&0, 0))
    }

    /// Writes the identity and what the process stores with it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_instance(&mut self, instance: &InstanceInfo) -> Result<(), MapsError> {
        named("INSTANCE", self.instance.set(0, instance, 0))
    }

    /// Writes the settings.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_config(&mut self, config: &Config) -> Result<(), MapsError> {
        named("CONFIG", self.config.set(0, config, 0))
    }

    /// The number of packets with this outcome, summed over all CPUs.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn count(&self, outcome: Outcome) -> Result<u64, MapsError> {
        self.counter(outcome as u32)
    }

    /// The number of packets with the outcome of this number, summed over all CPUs.
    fn counter(&self, number: u32) -> Result<u64, MapsError> {
        let values = named("COUNTERS", self.counters.get(&number, 0))?;
        Ok(values.iter().sum())
    }

    /// All elements of `COUNTERS`, summed over all CPUs, indexed by the outcome's number. The map is larger than the
    /// list of outcomes: a newer kernel half may count outcomes that this program does not know.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub(super) fn counters(&self) -> Result<Vec<u64>, MapsError> {
        (0..self.counters.len())
            .map(|number| self.counter(number))
            .collect()
    }

    /// The number of evicted flows, summed over all CPUs.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn count_evicted(&self) -> Result<u64, MapsError> {
        let values = named("EVICTED", self.evicted.get(&0, 0))?;
        Ok(values.iter().sum())
    }

    /// The counters of the rule with this id, summed over all CPUs; `None` if the id is out of range.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn rule_counters(&self, id: u32) -> Result<Option<RuleCounters>, MapsError> {
        if id >= self.rule_counters.len() {
            return Ok(None);
        }
        let values = named("RULE_COUNTERS", self.rule_counters.get(&id, 0))?;
        let mut sum = RuleCounters::default();
        for value in values.iter() {
            sum += *value;
        }
        Ok(Some(sum))
    }

    /// The number of rule ids, each with counters of its own.
    pub(super) fn rule_counters_len(&self) -> u32 {
        self.rule_counters.len()
    }

    /// Sets the counters of the rule with this id to 0.
    pub(super) fn reset_rule_counters(&mut self, id: u32) -> Result<(), MapsError> {
        let cpus = nr_cpus().map_err(|(_, error)| MapError::IoError(error));
        let zeros = cpus.and_then(|cpus| {
            let zeros = vec![RuleCounters::default(); cpus];
            PerCpuValues::try_from(zeros).map_err(MapError::IoError)
        });
        let zeros = named("RULE_COUNTERS", zeros)?;
        named("RULE_COUNTERS", self.rule_counters.set(id, zeros, 0))
    }

    /// Removes and returns up to `limit` unresolved clients and servers of each family.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn take_unresolved(&mut self, limit: usize) -> Result<Vec<(Side, IpAddr)>, MapsError> {
        let mut unresolved = named("UNRESOLVED_V4", take(&mut self.v4.unresolved, limit))?;
        unresolved.extend(named(
            "UNRESOLVED_V6",
            take(&mut self.v6.unresolved, limit),
        )?);
        Ok(unresolved)
    }

    /// Sets the next hop towards a client or server on the interface of `side`.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_route(
        &mut self,
        side: Side,
        destination: IpAddr,
        next_hop: NextHopRef,
    ) -> Result<(), MapsError> {
        match destination {
            IpAddr::V4(address) => {
                let key = AddressKey::new(side, address.into());
                named("ROUTES_V4", self.v4.routes.insert(key, next_hop, 0))
            }
            IpAddr::V6(address) => {
                let key = AddressKey::new(side, address.into());
                named("ROUTES_V6", self.v6.routes.insert(key, next_hop, 0))
            }
        }
    }

    /// Removes the next hops of all clients and servers.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn clear_routes(&mut self) -> Result<(), MapsError> {
        named("ROUTES_V4", clear(&mut self.v4.routes))?;
        named("ROUTES_V6", clear(&mut self.v6.routes))
    }

    /// Writes a next hop.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_next_hop(&mut self, index: u32, next_hop: &NextHop) -> Result<(), MapsError> {
        named("NEXT_HOPS", self.next_hops.set(index, next_hop, 0))
    }

    /// Replaces the addresses of one interface. An address that stays is never missing in between.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn set_addresses(
        &mut self,
        side: Side,
        addresses: &BTreeSet<IpAddr>,
    ) -> Result<(), MapsError> {
        let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
        for address in addresses {
            match address {
                IpAddr::V4(address) => {
                    v4.insert(AddressKey::new(side, (*address).into()));
                }
                IpAddr::V6(address) => {
                    v6.insert(AddressKey::new(side, (*address).into()));
                }
            }
        }
        named("ADDRESSES_V4", replace(&mut self.v4.addresses, &v4, side))?;
        named("ADDRESSES_V6", replace(&mut self.v6.addresses, &v6, side))
    }
}

/// Replaces the addresses of one side. Adds before it removes, so that an address that stays is never missing.
fn replace<A: Address + Ord>(
    set: &mut HashMap<MapData, AddressKey<A>, u32>,
    current: &BTreeSet<AddressKey<A>>,
    side: Side,
) -> Result<(), MapError> {
    let is_ours = |key: &AddressKey<A>| key.side() == Some(side);
    let present = set
        .keys()
        .filter(|key| key.as_ref().map_or(true, is_ours))
        .collect::<Result<BTreeSet<_>, _>>()?;
    for key in current.difference(&present) {
        set.insert(key, 1, 0)?;
    }
    for key in present.difference(current) {
        set.remove(key)?;
    }
    Ok(())
}

/// Removes and returns up to `limit` addresses.
fn take<A: Address + Into<IpAddr>>(
    map: &mut HashMap<MapData, AddressKey<A>, u64>,
    limit: usize,
) -> Result<Vec<(Side, IpAddr)>, MapError> {
    let keys = map.keys().take(limit).collect::<Result<Vec<_>, _>>()?;
    for key in &keys {
        // The kernel half may have evicted it in the meantime.
        let _ = map.remove(key);
    }
    Ok(keys
        .into_iter()
        .filter_map(|key| Some((key.side()?, key.address.into())))
        .collect())
}

fn clear<K: Pod, V: Pod>(map: &mut HashMap<MapData, K, V>) -> Result<(), MapError> {
    let keys = map.keys().collect::<Result<Vec<_>, _>>()?;
    keys.iter().try_for_each(|key| map.remove(key))
}
