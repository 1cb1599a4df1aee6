//! The kernel's neighbour table: who has which Ethernet address, by ARP and neighbour discovery.

use std::{collections::HashMap, net::IpAddr};

use futures_util::TryStreamExt as _;
use rtnetlink::packet_route::{
    link::LinkFlags,
    neighbour::{
        NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
    },
};

use super::interface::{InterfaceError, Interfaces, MacAddress};

/// What the kernel knows of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// Its Ethernet address is good, as far as the kernel knows.
    Known(MacAddress),
    /// The interface hands packets over without addresses.
    NeedsNone,
    /// It is being asked for its address now (`NUD_INCOMPLETE`).
    Asked,
    /// It was asked for its address, and did not answer (`NUD_FAILED`).
    Silent,
    /// It was not asked of late.
    Unknown,
}

/// The address that an entry is about.
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

/// An entry's Ethernet address, if it is good as far as the kernel knows (`NUD_VALID` in `net/neighbour.h`).
fn good_mac(message: &NeighbourMessage) -> Option<MacAddress> {
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
    /// Makes the kernel find out the MAC address of a neighbour, as if there was a packet for it (`NTF_USE` in
    /// `net/core/neighbour.c`). Does not wait for the answer.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub async fn ask_neighbour(&self, index: u32, address: IpAddr) -> Result<(), InterfaceError> {
        let neighbours = self.handle.neighbours();
        let request = neighbours
            .add(index, address)
            .state(NeighbourState::None)
            .flags(NeighbourFlags::Use)
            .replace();
        Ok(request.execute().await?)
    }

    /// The neighbours whose MAC address the kernel would use now, by interface and address.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub async fn neighbours(&self) -> Result<HashMap<(u32, IpAddr), MacAddress>, InterfaceError> {
        let mut neighbours = HashMap::new();
        let mut messages = std::pin::pin!(self.handle.neighbours().get().execute());
        while let Some(message) = messages.try_next().await? {
            if let (Some(address), Some(mac)) = (address(&message), good_mac(&message)) {
                neighbours.insert((message.header.ifindex, address), mac);
            }
        }
        Ok(neighbours)
    }

    /// What the kernel knows of a neighbour on the interface with this index.
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
            return Ok(match (good_mac(&message), message.header.state) {
                (Some(mac), _) => Neighbour::Known(mac),
                (None, NeighbourState::Incomplete) => Neighbour::Asked,
                (None, NeighbourState::Failed) => Neighbour::Silent,
                (None, _) => Neighbour::Unknown,
            });
        }
        Ok(Neighbour::Unknown)
    }
}
