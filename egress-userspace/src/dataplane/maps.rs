//! The kernel half's maps, by the names that `bpftool map` shows: typed handles, and how they are filled.

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
use super::subscribers::{Named, SubscriberMaps, Subscription};

/// One family's maps.
pub struct FamilyMaps<A: Address> {
    /// The rules.
    pub rules: HashMap<MapData, RuleKey, Rule<A>>,
    /// The flows, with two entries each.
    pub flows: HashMap<MapData, Tuple<A>, Flow<A>>,
    /// The addresses of both interfaces. The value has no meaning.
    pub addresses: HashMap<MapData, AddressKey<A>, u32>,
    /// The next hops of clients and servers.
    routes: HashMap<MapData, AddressKey<A>, NextHopRef>,
    /// The clients and servers whose next hop is not known.
    wanted: HashMap<MapData, AddressKey<A>, u64>,
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

    /// The maps out of wherever `source` finds one by its name.
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
                wanted: typed("UNRESOLVED_V4", &mut source)?,
            },
            v6: FamilyMaps {
                rules: typed("RULES_V6", &mut source)?,
                flows: typed("FLOWS_V6", &mut source)?,
                addresses: typed("ADDRESSES_V6", &mut source)?,
                routes: typed("ROUTES_V6", &mut source)?,
                wanted: typed("UNRESOLVED_V6", &mut source)?,
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
                    Named::new(name, map)
                };
                SubscriberMaps {
                    until: subscriber_map("SUBSCRIBERS")?,
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

    /// Opens a subscriber, to listen by it.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn subscribe(&self, subscriber: Subscriber) -> Result<Subscription, MapsError> {
        self.subscribers.open(subscriber)
    }

    /// The settings.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn config(&self) -> Result<Config, MapsError> {
        named("CONFIG", self.config.get(&0, 0))
    }

    /// Makes this nobody's dataplane. The kernel frees a program a while after it is detached; until then it would still be
    /// taken for a router.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn retire(&mut self) -> Result<(), MapsError> {
        let retired = Config {
            // Rules are still found: what is to be dropped is not left to the pod's stack, which would refuse it.
            rule_set: self.config()?.rule_set,
            ..Config::zeroed()
        };
        self.set_instance(&InstanceInfo::zeroed())?;
        self.set_config(&retired)
    }

    /// Whose dataplane it is, and what its process keeps there.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn instance(&self) -> Result<InstanceInfo, MapsError> {
        named("INSTANCE", self.instance.get(&0, 0))
    }

    /// Writes whose dataplane it is, and what its process keeps there.
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

    /// How many packets had this outcome, on all CPUs.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn count(&self, outcome: Outcome) -> Result<u64, MapsError> {
        self.counter(outcome as u32)
    }

    /// How many packets had the outcome with this number, on all CPUs.
    fn counter(&self, number: u32) -> Result<u64, MapsError> {
        let values = named("COUNTERS", self.counters.get(&number, 0))?;
        Ok(values.iter().sum())
    }

    /// All elements of `COUNTERS`, on all CPUs, by the outcome's number. There are more than this version has outcomes: a
    /// newer kernel half may have some that a reader does not know.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub(super) fn counters(&self) -> Result<Vec<u64>, MapsError> {
        (0..self.counters.len())
            .map(|number| self.counter(number))
            .collect()
    }

    /// How many flows were ended to make room for others, on all CPUs.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn count_evicted(&self) -> Result<u64, MapsError> {
        let values = named("EVICTED", self.evicted.get(&0, 0))?;
        Ok(values.iter().sum())
    }

    /// The counters of the rule with this id, summed up over all CPUs; `None` for a rule without counters.
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

    /// How many rules can be counted each by itself.
    pub(super) fn rule_counters_len(&self) -> u32 {
        self.rule_counters.len()
    }

    /// Makes the counters of the rule with this id begin at 0.
    pub(super) fn reset_rule_counters(&mut self, id: u32) -> Result<(), MapsError> {
        let cpus = nr_cpus().map_err(|(_, error)| MapError::IoError(error));
        let zeros = cpus.and_then(|cpus| {
            let zeros = vec![RuleCounters::default(); cpus];
            PerCpuValues::try_from(zeros).map_err(MapError::IoError)
        });
        let zeros = named("RULE_COUNTERS", zeros)?;
        named("RULE_COUNTERS", self.rule_counters.set(id, zeros, 0))
    }

    /// Takes out up to `limit` of those whose next hop the kernel half does not know, of each family.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn take_wanted(&mut self, limit: usize) -> Result<Vec<(Side, IpAddr)>, MapsError> {
        let mut wanted = named("UNRESOLVED_V4", take(&mut self.v4.wanted, limit))?;
        wanted.extend(named("UNRESOLVED_V6", take(&mut self.v6.wanted, limit))?);
        Ok(wanted)
    }

    /// Sets the next hop of a client or server, which is reached by the interface of `side`.
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

    /// Forgets the next hops of all clients and servers.
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

    /// Makes the addresses of one interface those that it has now.
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
        named(
            "ADDRESSES_V4",
            replace(&mut self.v4.addresses, &v4, |key| key.side() == Some(side)),
        )?;
        named(
            "ADDRESSES_V6",
            replace(&mut self.v6.addresses, &v6, |key| key.side() == Some(side)),
        )
    }
}

/// Makes those keys of a set that are `ours` the `wanted` ones: first adds, then removes, so that what stays is never
/// missing.
fn replace<K: Pod + Ord>(
    set: &mut HashMap<MapData, K, u32>,
    wanted: &BTreeSet<K>,
    ours: impl Fn(&K) -> bool,
) -> Result<(), MapError> {
    let present = set
        .keys()
        .filter(|key| key.as_ref().map_or(true, &ours))
        .collect::<Result<BTreeSet<K>, _>>()?;
    for key in wanted.difference(&present) {
        set.insert(key, 1, 0)?;
    }
    for key in present.difference(wanted) {
        set.remove(key)?;
    }
    Ok(())
}

/// Takes out up to `limit` addresses.
fn take<A: Address + Into<IpAddr>>(
    map: &mut HashMap<MapData, AddressKey<A>, u64>,
    limit: usize,
) -> Result<Vec<(Side, IpAddr)>, MapError> {
    let keys = map.keys().take(limit).collect::<Result<Vec<_>, _>>()?;
    for key in &keys {
        // The kernel half may have displaced it meanwhile.
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
