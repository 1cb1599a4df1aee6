//! Counting what is in the flow table.
//!
//! A key is a system call, and takes about a microsecond; a flow has two. So the walk has a thread of its own, with its own
//! descriptors of the maps, there is one at a time, and its result stands for [`GOOD_FOR`].

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

/// How long a count stands before the table is walked again.
const GOOD_FOR: Duration = Duration::from_secs(15);
/// How long a scrape waits for a walk; Prometheus gives up after 10 seconds.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many destinations are told of by name. A scrape has a bounded size this way; `nat_destinations` has the number of
/// all. There is no series for "all others": added up, ports of different servers mean nothing.
const BUSIEST: usize = 50;

type FlowMap<A> = BpfMap<MapData, Tuple<A>, Flow<A>>;

/// Where flows go: what a NAT port has to be free towards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Destination {
    pub server: IpAddr,
    /// 0 for echo requests, which have none.
    pub port: u16,
    pub protocol: u8,
}

/// What a walk has counted.
#[derive(Clone, Debug)]
pub(super) struct Census {
    pub taken: SystemTime,
    /// IPv4 and IPv6.
    pub flows: [usize; 2],
    /// How many destinations there are.
    pub destinations: usize,
    /// Those with the most flows, with their number.
    pub busiest: Vec<(Destination, usize)>,
}

/// The flow maps, by descriptors of their own.
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
    pub fn of(maps: &Maps, max_flows: u32) -> Result<Self, MapError> {
        Ok(Self {
            v4: duplicate(&maps.v4.flows)?,
            v6: duplicate(&maps.v6.flows)?,
            max_flows: max_flows as usize,
        })
    }

    fn count(&self) -> Census {
        let mut counts = HashMap::new();
        let flows = [
            tally(&self.v4, self.max_flows, &mut counts),
            tally(&self.v6, self.max_flows, &mut counts),
        ];
        Census {
            taken: SystemTime::now(),
            flows,
            destinations: counts.len(),
            busiest: busiest(counts),
        }
    }
}

/// Adds the flows of one family up, by destination. How many there are.
fn tally<A: Address + Into<IpAddr>>(
    map: &FlowMap<A>,
    max_flows: usize,
    counts: &mut HashMap<Destination, usize>,
) -> usize {
    let mut flows = 0;
    // The kernel begins anew when the key that it stands on has gone: what can be there bounds the walk.
    for tuple in map.keys().take(2 * max_flows).filter_map(Result::ok) {
        // An answer's key has the server as its source, and the NAT port.
        if tuple.side() == Some(Side::Egress) {
            let has_ports = !matches!(tuple.protocol, protocol::ICMP | protocol::ICMPV6);
            let port = tuple.ports.source.number();
            let destination = Destination {
                server: tuple.addresses.source.into(),
                port: if has_ports { port } else { 0 },
                protocol: tuple.protocol,
            };
            *counts.entry(destination).or_default() += 1;
            flows += 1;
        }
    }
    flows.min(max_flows)
}

fn busiest(counts: HashMap<Destination, usize>) -> Vec<(Destination, usize)> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    // The destination breaks ties, so that the same ones are told of each time.
    let key = |&(destination, count): &(Destination, usize)| (Reverse(count), destination);
    if counts.len() > BUSIEST {
        counts.select_nth_unstable_by_key(BUSIEST, key);
        counts.truncate(BUSIEST);
    }
    counts.sort_unstable_by_key(key);
    counts
}

/// The last count, for all who ask.
#[derive(Debug, Default)]
pub(super) struct Cache {
    state: Mutex<State>,
    counted: Notify,
}

#[derive(Debug, Default)]
struct State {
    last: Option<(Instant, Arc<Census>)>,
    is_walking: bool,
}

impl Cache {
    /// The last count; if that is too old a new one, or the old one while that takes its time.
    pub async fn get(self: &Arc<Self>, tables: FlowTables) -> Option<Arc<Census>> {
        // From here on, so that a walk which ends at once is not missed.
        let counted = self.counted.notified();
        if let Some(census) = self.begin(tables) {
            return Some(census);
        }
        let _ = timeout(PATIENCE, counted).await;
        let state = self.state();
        state.last.as_ref().map(|(_, census)| Arc::clone(census))
    }

    /// The last count, if it is good; else sees to it that there is a walk.
    fn begin(self: &Arc<Self>, tables: FlowTables) -> Option<Arc<Census>> {
        let mut state = self.state();
        if let Some((taken, census)) = &state.last
            && taken.elapsed() < GOOD_FOR
        {
            return Some(Arc::clone(census));
        }
        if !state.is_walking {
            state.is_walking = true;
            let cache = Arc::clone(self);
            // It goes on when the client that it was begun for has gone.
            spawn_blocking(move || cache.store(tables.count()));
        }
        None
    }

    fn store(&self, census: Census) {
        let mut state = self.state();
        state.last = Some((Instant::now(), Arc::new(census)));
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
    fn the_busiest_destinations_are_told_of_and_the_same_ones_among_equals() {
        let destination = |port| Destination {
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
