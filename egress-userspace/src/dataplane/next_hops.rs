//! Keeping the kernel half's next hops as the kernel's own tables have them.

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

/// How long a next hop is good once it was looked at: at least twice the time between two looks, so that one may be late.
const GOOD_FOR_NS: u64 = 1_000_000_000;

/// How many clients and servers are looked up at a time; the others have to wait for the next.
const LOOKUPS: usize = 256;

/// How many clients and servers are known. Then it begins anew: nobody knows which of them are still there.
const MAX_ROUTES: usize = 60_000;

/// Why the next hops are not current.
#[derive(Debug, thiserror::Error)]
pub enum NextHopsError {
    /// The kernel half's maps.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The kernel's tables.
    #[error(transparent)]
    Kernel(#[from] InterfaceError),
}

/// A neighbour of one of the router's interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Hop {
    side: Side,
    address: IpAddr,
}

/// The number of next hops on one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHopCounts {
    /// The kernel knows their MAC address.
    pub good: usize,
    /// The kernel would have to resolve them first.
    pub unresolved: usize,
}

/// The next hops that are in use.
#[derive(Debug, Default)]
pub struct NextHops {
    /// Each with its place and its number.
    hops: HashMap<Hop, NextHopRef>,
    /// Clients and servers that are known.
    routes: usize,
    /// How often it has begun anew, with this process or one before.
    generation: u32,
    /// Of each side, how many were good when they were looked at last.
    good: [usize; 2],
}

impl NextHops {
    /// Looks up whom the kernel half has asked for, and makes all next hops good for a while, or not, as the kernel's neighbour
    /// table is now.
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
            self.begin_anew(maps)?;
        }
        for (side, destination) in maps.take_wanted(LOOKUPS)? {
            // Without a route there is no next hop, and it will be asked for again.
            if let Ok(Some(address)) = kernel.next_hop(index(side), destination).await {
                let hop = Hop { side, address };
                if let Some(reference) = self.place(hop) {
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
        let valid_until_ns = kernel::monotonic_ns() + GOOD_FOR_NS;
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
                // Never good: the kernel has to find the neighbour first.
                _ => bytemuck::Zeroable::zeroed(),
            };
            maps.set_next_hop(reference.index(), &next_hop)?;
        }
        Ok(())
    }

    /// How many next hops there are on the cluster network and on the external one, and how many of these were good when they
    /// were looked at last.
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

    /// Forgets everything, as when a route has changed: flows ask anew within a second. To be called first, as flows of an
    /// earlier process have references that are not good any more.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn begin_anew(&mut self, maps: &mut Maps) -> Result<(), MapsError> {
        // The places of next hops get other numbers than they ever had, so that what flows still refer to is not good.
        let mut instance = maps.instance()?;
        instance.next_hop_generation = instance.next_hop_generation.wrapping_add(1);
        maps.set_instance(&instance)?;
        self.generation = instance.next_hop_generation;
        let places: BTreeSet<_> = self.hops.drain().map(|(_, it)| it.index()).collect();
        for index in places {
            maps.set_next_hop(index, &bytemuck::Zeroable::zeroed())?;
        }
        self.routes = 0;
        maps.clear_routes()
    }

    /// The place of a next hop, new or not; `None` if all are taken.
    fn place(&mut self, hop: Hop) -> Option<NextHopRef> {
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
    fn each_next_hop_has_a_place_of_its_own_and_keeps_it() {
        let mut next_hops = NextHops::default();
        let hop = |last: u8| Hop {
            side: Side::Egress,
            address: [192, 168, 12, last].into(),
        };
        let first = next_hops.place(hop(1)).unwrap();
        let second = next_hops.place(hop(2)).unwrap();
        assert_ne!(first.index(), second.index());
        assert!(first.index() != 0, "that stands for none");
        assert_eq!(next_hops.place(hop(1)), Some(first));
    }

    #[test]
    fn no_more_next_hops_are_known_than_there_are_places() {
        let mut next_hops = NextHops::default();
        for number in 0..NEXT_HOPS - 1 {
            let address = IpAddr::V4(number.into());
            let side = Side::Cluster;
            assert!(next_hops.place(Hop { side, address }).is_some(), "{number}");
        }
        let address = IpAddr::V4([10, 0, 0, 1].into());
        let side = Side::Egress;
        assert_eq!(next_hops.place(Hop { side, address }), None);
    }
}
