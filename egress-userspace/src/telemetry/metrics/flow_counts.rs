//! Counts the flows in the flow table.
//!
//! Each key costs a system call of about a microsecond, and a flow has two keys. A separate thread therefore walks the
//! table, through its own descriptors of the maps. Only one walk runs at a time, and its result is valid for
//! [`MAX_AGE`].

use std::{
    cmp::Reverse,
    collections::HashMap,
    net::IpAddr,
    os::fd::AsFd as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use aya::maps::{HashMap as BpfMap, IterableMap, Map, MapData, MapError};
use egress_common::{Address, Flow, Ipv4Address, Ipv6Address, Side, Tuple, protocol};
use tokio::{sync::Notify, task::spawn_blocking, time::timeout};

use crate::dataplane::Maps;

/// The age at which counts are outdated.
const MAX_AGE: Duration = Duration::from_secs(15);
/// How long a scrape waits for a walk. Prometheus gives up after 10 seconds.
const WALK_TIMEOUT: Duration = Duration::from_secs(3);
/// The number of destinations with a series, which bounds the size of a scrape. `nat_destinations` counts all of them.
/// There is no series for the rest: a sum of ports of different servers has no meaning.
const MAX_DESTINATIONS: usize = 50;

type FlowMap<A> = BpfMap<MapData, Tuple<A>, Flow<A>>;

/// A server's endpoint. NAT ports are allocated per destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NatDestination {
    pub server: IpAddr,
    /// 0 for echo requests, which have no port.
    pub port: u16,
    pub protocol: u8,
}

/// The result of a walk.
#[derive(Clone, Debug)]
pub(super) struct FlowCounts {
    /// When the walk ended.
    pub taken: SystemTime,
    /// The number of IPv4 flows and of IPv6 flows.
    pub flows: [usize; 2],
    /// The number of destinations.
    pub destinations: usize,
    /// The destinations with the most flows, and their number of flows. Each flow has a NAT port.
    pub busiest: Vec<(NatDestination, usize)>,
}

/// The flow maps, opened through descriptors of their own.
pub(super) struct FlowTables {
    v4: FlowMap<Ipv4Address>,
    v6: FlowMap<Ipv6Address>,
    max_flows: usize,
}

fn duplicate<A: Address>(map: &FlowMap<A>) -> Result<FlowMap<A>, MapError> {
    let descriptor = IterableMap::map(map).fd().as_fd().try_clone_to_owned()?;
    FlowMap::try_from(Map::from_map_data(MapData::from_fd(descriptor)?)?)
}

impl FlowTables {
    pub fn duplicate(maps: &Maps, max_flows: u32) -> Result<Self, MapError> {
        Ok(Self {
            v4: duplicate(&maps.v4.flows)?,
            v6: duplicate(&maps.v6.flows)?,
            max_flows: max_flows as usize,
        })
    }

    fn count(&self) -> FlowCounts {
        let mut by_destination = HashMap::new();
        let flows = [
            count(&self.v4, self.max_flows, &mut by_destination),
            count(&self.v6, self.max_flows, &mut by_destination),
        ];
        FlowCounts {
            taken: SystemTime::now(),
            flows,
            destinations: by_destination.len(),
            busiest: busiest(by_destination),
        }
    }
}

/// Adds the flows of one address family to `by_destination`, and returns their number.
fn count<A: Address + Into<IpAddr>>(
    map: &FlowMap<A>,
    max_flows: usize,
    by_destination: &mut HashMap<NatDestination, usize>,
) -> usize {
    let mut flows = 0;
    // The kernel restarts the walk if the current key was deleted in the meantime, so the table size bounds the walk.
    for tuple in map.keys().take(2 * max_flows).filter_map(Result::ok) {
        // A reply tuple has the server as its source.
        if tuple.side() == Some(Side::Egress) {
            let has_ports = !matches!(tuple.protocol, protocol::ICMP | protocol::ICMPV6);
            let port = tuple.ports.source.number();
            let destination = NatDestination {
                server: tuple.addresses.source.into(),
                port: if has_ports { port } else { 0 },
                protocol: tuple.protocol,
            };
            *by_destination.entry(destination).or_default() += 1;
            flows += 1;
        }
    }
    flows.min(max_flows)
}

fn busiest(by_destination: HashMap<NatDestination, usize>) -> Vec<(NatDestination, usize)> {
    let mut counts: Vec<_> = by_destination.into_iter().collect();
    // The destination breaks ties, so that each scrape selects the same ones.
    let key = |&(destination, count): &(NatDestination, usize)| (Reverse(count), destination);
    if counts.len() > MAX_DESTINATIONS {
        counts.select_nth_unstable_by_key(MAX_DESTINATIONS, key);
        counts.truncate(MAX_DESTINATIONS);
    }
    counts.sort_unstable_by_key(key);
    counts
}

/// The most recent counts, which all scrapes share.
#[derive(Debug, Default)]
pub(super) struct Cache {
    state: Mutex<State>,
    counted: Notify,
}

#[derive(Debug, Default)]
struct State {
    last: Option<(Instant, Arc<FlowCounts>)>,
    is_walking: bool,
}

impl Cache {
    /// Returns the most recent counts. Outdated ones are renewed first, unless the walk takes longer than
    /// [`WALK_TIMEOUT`]. `None` if no walk has ended yet.
    pub async fn get(self: &Arc<Self>, tables: FlowTables) -> Option<Arc<FlowCounts>> {
        // Subscribes before the walk starts, so that its end is not missed.
        let counted = self.counted.notified();
        if let Some(counts) = self.current_or_walk(tables) {
            return Some(counts);
        }
        let _ = timeout(WALK_TIMEOUT, counted).await;
        let state = self.state();
        state.last.as_ref().map(|(_, counts)| Arc::clone(counts))
    }

    /// Returns the most recent counts unless they are outdated. Otherwise starts a walk if none is running.
    fn current_or_walk(self: &Arc<Self>, tables: FlowTables) -> Option<Arc<FlowCounts>> {
        let mut state = self.state();
        if let Some((taken, counts)) = &state.last
            && taken.elapsed() < MAX_AGE
        {
            return Some(Arc::clone(counts));
        }
        if !state.is_walking {
            state.is_walking = true;
            let cache = Arc::clone(self);
            // The walk continues if the client that caused it disconnects.
            spawn_blocking(move || cache.store(tables.count()));
        }
        None
    }

    fn store(&self, counts: FlowCounts) {
        let mut state = self.state();
        state.last = Some((Instant::now(), Arc::new(counts)));
        state.is_walking = false;
        drop(state);
        self.counted.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_busiest_destinations_have_series_and_always_the_same_among_equals() {
        let destination = |port| NatDestination {
            server: [203, 0, 113, 26].into(),
            port,
            protocol: protocol::TCP,
        };
        let mut counts: HashMap<_, _> = (1..=200).map(|port| (destination(port), 7)).collect();
        counts.insert(destination(200), 9);
        let found = busiest(counts);
        let expected: Vec<_> = std::iter::once((destination(200), 9))
            .chain((1..50).map(|port| (destination(port), 7)))
            .collect();
        assert_eq!(found, expected);
    }
}
