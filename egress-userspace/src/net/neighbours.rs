//! The kernel's neighbour table: the MAC addresses that ARP and neighbour discovery have found.

use std::{collections::HashMap, net::IpAddr};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::{
    link::LinkFlags,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
};

use super::interface::{InterfaceError, Interfaces, MacAddress};

/// The kernel's state of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// Its MAC address is valid (`NUD_VALID`).
    Known(MacAddress),
    /// The interface uses no neighbour resolution (`IFF_NOARP`).
    NeedsNone,
    /// The kernel waits for its answer (`NUD_INCOMPLETE`).
    Asked,
    /// It did not answer (`NUD_FAILED`).
    Silent,
    /// The kernel has no entry for it, or has not resolved it.
    Unknown,
}

/// The IP address of an entry.
fn address(message: &NeighbourMessage) -> Option<IpAddr> {
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::Destination(NeighbourAddress::Inet(it)) => Some(IpAddr::V4(*it)),
            NeighbourAttribute::Destination(NeighbourAddress::Inet6(it)) => Some(IpAddr::V6(*it)),
            _ => None,
        })
}

/// The MAC address of an entry if the kernel would use it (`NUD_VALID` in `net/neighbour.h`).
fn valid_mac(message: &NeighbourMessage) -> Option<MacAddress> {
    let is_valid = matches!(
        message.header.state,
        NeighbourState::Reachable
            | NeighbourState::Stale
            | NeighbourState::Delay
            | NeighbourState::Probe
            | NeighbourState::Permanent
    );
    if !is_valid {
        return None;
    }
    message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            NeighbourAttribute::LinkLayerAddress(octets) => octets.as_slice().try_into().ok(),
            _ => None,
        })
}

impl Interfaces {
    /// Makes the kernel resolve a neighbour, as a packet to it would (`NTF_USE` in `net/core/neighbour.c`). Does not
    /// wait for the answer.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub async fn resolve_neighbour(
        &self,
        index: u32,
        address: IpAddr,
    ) -> Result<(), InterfaceError> {
        let neighbours = self.handle.neighbours();
        let request = neighbours
            .add(index, address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        Ok(request.execute().await?)
    }

    /// All valid MAC addresses, by interface index and IP address.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub async fn neighbours(&self) -> Result<HashMap<(u32, IpAddr), MacAddress>, InterfaceError> {
        let mut neighbours = HashMap::new();
        let mut messages = std::pin::pin!(self.handle.neighbours().get().execute());
        while let Some(message) = messages.try_next().await? {
            if let (Some(address), Some(mac)) = (address(&message), valid_mac(&message)) {
                neighbours.insert((message.header.ifindex, address), mac);
            }
        }
        Ok(neighbours)
    }

    /// The state of a neighbour on the interface with this index.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub async fn neighbour(
        &self,
        index: u32,
        neighbour: IpAddr,
    ) -> Result<Neighbour, InterfaceError> {
        let mut links = self.handle.link().get().match_index(index).execute();
        let link = links.try_next().await?;
        if link.is_some_and(|link| link.header.flags.contains(LinkFlags::Noarp)) {
            return Ok(Neighbour::NeedsNone);
        }
        let mut messages = std::pin::pin!(self.handle.neighbours().get().execute());
        while let Some(message) = messages.try_next().await? {
            if message.header.ifindex != index || address(&message) != Some(neighbour) {
                continue;
            }
            return Ok(match (valid_mac(&message), message.header.state) {
                (Some(mac), _) => Neighbour::Known(mac),
                (None, NeighbourState::Incomplete) => Neighbour::Asked,
                (None, NeighbourState::Failed) => Neighbour::Silent,
                (None, _) => Neighbour::Unknown,
            });
        }
        Ok(Neighbour::Unknown)
    }
}
