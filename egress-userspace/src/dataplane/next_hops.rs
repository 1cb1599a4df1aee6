//! Keeps the kernel half's next hops in sync with the kernel's routing and neighbour tables.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
};

use egress_common::{NEXT_HOPS, NextHop, NextHopRef, Side};

use super::maps::Maps;
use super::maps_error::MapsError;
use crate::net::{
    interface::{Interface, InterfaceError, Interfaces, MacAddress},
    kernel,
};

/// How long a next hop is valid after a refresh: at least twice the interval between refreshes, so that one may be
/// late.
const VALID_FOR_NS: u64 = 1_000_000_000;

/// The maximum number of clients and servers, per family, that one refresh looks up. The others wait for the next one.
const LOOKUPS: usize = 256;

/// The maximum number of clients and servers with a next hop. Beyond it all are removed, as nothing tells which of them
/// are still in use.
const MAX_ROUTES: usize = 60_000;

/// Why the next hops could not be refreshed.
#[derive(Debug, thiserror::Error)]
pub enum NextHopsError {
    /// The kernel refused a map operation.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The kernel's tables could not be read.
    #[error(transparent)]
    Kernel(#[from] InterfaceError),
}

/// A neighbour of one of the router's interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Hop {
    side: Side,
    address: IpAddr,
}

/// The number of next hops on one side, by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHopCounts {
    /// The kernel knows their MAC address.
    pub good: usize,
    /// The kernel does not know their MAC address.
    pub unresolved: usize,
}

/// The next hops in use.
#[derive(Debug, Default)]
pub struct NextHops {
    /// Each with its index in `NEXT_HOPS` and its generation.
    hops: HashMap<Hop, NextHopRef>,
    /// The number of clients and servers with a next hop.
    routes: usize,
    /// The number of resets, including those of earlier processes.
    generation: u32,
    /// The number of next hops per side with a known MAC address, as of the last refresh.
    good: [usize; 2],
}

impl NextHops {
    /// Looks up next hops for unresolved clients and servers, and renews or invalidates every next hop according to the
    /// kernel's neighbour table.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub async fn refresh(
        &mut self,
        maps: &mut Maps,
        kernel: &Interfaces,
        [cluster, egress]: [&Interface; 2],
    ) -> Result<(), NextHopsError> {
        let index = |side| match side {
            Side::Cluster => cluster.index,
            Side::Egress => egress.index,
        };
        if self.routes > MAX_ROUTES {
            self.reset(maps)?;
        }
        for (side, destination) in maps.take_unresolved(LOOKUPS)? {
            // Without a route there is no next hop. The kernel half will report the destination again.
            if let Ok(Some(address)) = kernel.next_hop(index(side), destination).await {
                let hop = Hop { side, address };
                if let Some(reference) = self.reference(hop) {
                    maps.set_route(side, destination, reference)?;
                    self.routes += 1;
                }
            }
        }
        self.good = [0; 2];
        if self.hops.is_empty() {
            return Ok(());
        }
        let own = [
            kernel.mac(cluster.index).await?,
            kernel.mac(egress.index).await?,
        ];
        let neighbours = kernel.neighbours().await?;
        let valid_until_ns = kernel::monotonic_ns() + VALID_FOR_NS;
        for (hop, reference) in &self.hops {
            let neighbour = neighbours.get(&(index(hop.side), hop.address));
            let next_hop = match (neighbour, own[hop.side as usize]) {
                (Some(neighbour), Some(own)) => {
                    self.good[hop.side as usize] += 1;
                    NextHop {
                        macs: macs(*neighbour, own),
                        reference: *reference,
                        valid_until_ns,
                    }
                }
                // Not valid: the kernel must resolve the neighbour first.
                _ => bytemuck::Zeroable::zeroed(),
            };
            maps.set_next_hop(reference.index(), &next_hop)?;
        }
        Ok(())
    }

    /// The number of next hops on the cluster network and on the external network, as of the last refresh.
    pub fn counts(&self) -> [NextHopCounts; 2] {
        [Side::Cluster, Side::Egress].map(|side| {
            let all = self.hops.keys().filter(|hop| hop.side == side).count();
            let good = self.good[side as usize];
            NextHopCounts {
                good,
                unresolved: all.saturating_sub(good),
            }
        })
    }

    /// Removes all next hops, such as after a route change. Flows report their destinations again within a second. Must
    /// be called before the first refresh: flows of an earlier process hold references that are no longer valid.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn reset(&mut self, maps: &mut Maps) -> Result<(), MapsError> {
        // A new generation makes the references that flows still hold invalid.
        let mut instance = maps.instance()?;
        instance.next_hop_generation = instance.next_hop_generation.wrapping_add(1);
        maps.set_instance(&instance)?;
        self.generation = instance.next_hop_generation;
        let indexes: BTreeSet<_> = self.hops.drain().map(|(_, it)| it.index()).collect();
        for index in indexes {
            maps.set_next_hop(index, &bytemuck::Zeroable::zeroed())?;
        }
        self.routes = 0;
        maps.clear_routes()
    }

    /// The reference of a next hop, which is added if it is new; `None` if `NEXT_HOPS` is full.
    fn reference(&mut self, hop: Hop) -> Option<NextHopRef> {
        let index = u32::try_from(self.hops.len()).ok()? + 1;
        if let Some(reference) = self.hops.get(&hop) {
            return Some(*reference);
        }
        if index >= NEXT_HOPS {
            return None;
        }
        let reference = NextHopRef::new(index, self.generation);
        self.hops.insert(hop, reference);
        Some(reference)
    }
}

fn macs(destination: MacAddress, source: MacAddress) -> [u8; 12] {
    let mut macs = [0; 12];
    macs[..6].copy_from_slice(&destination);
    macs[6..].copy_from_slice(&source);
    macs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_next_hop_has_an_index_of_its_own_and_keeps_it() {
        let mut next_hops = NextHops::default();
        let hop = |last: u8| Hop {
            side: Side::Egress,
            address: [192, 168, 12, last].into(),
        };
        let first = next_hops.reference(hop(1)).unwrap();
        let second = next_hops.reference(hop(2)).unwrap();
        assert_ne!(first.index(), second.index());
        assert!(first.index() != 0, "0 stands for no next hop");
        assert_eq!(next_hops.reference(hop(1)), Some(first));
    }

    #[test]
    fn a_full_map_takes_no_more_next_hops() {
        let mut next_hops = NextHops::default();
        for number in 0..NEXT_HOPS - 1 {
            let address = IpAddr::V4(number.into());
            let side = Side::Cluster;
            assert!(
                next_hops.reference(Hop { side, address }).is_some(),
                "{number}"
            );
        }
        let address = IpAddr::V4([10, 0, 0, 1].into());
        let side = Side::Egress;
        assert_eq!(next_hops.reference(Hop { side, address }), None);
    }
}
