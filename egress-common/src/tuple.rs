//! The tuple that names a flow.

use bytemuck::{Pod, Zeroable};

use crate::network::{Address, Ipv4Address, Ipv6Address, Pair, Ports};

/// The interface that a packet arrived on. The numbers stand in map keys and records, and stay.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// `eth0`: clients in the cluster; the direction in which a flow is opened.
    Cluster = 0,
    /// `net1`: servers on the external network; the direction of replies.
    Egress = 1,
}

impl Side {
    /// The interface that a forwarded packet leaves by.
    #[inline(always)]
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Cluster => Self::Egress,
            Self::Egress => Self::Cluster,
        }
    }

    /// The side with this number in a map key.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Cluster),
            1 => Some(Self::Egress),
            _ => None,
        }
    }
}

/// A packet's tuple as it arrived: the key of `FLOWS_V4` and `FLOWS_V6`.
///
/// The side belongs to the key, so that a packet on `net1` cannot match what only `eth0` may bring, whatever addresses
/// it claims to have.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple<A> {
    /// Source and destination address, before translation.
    pub addresses: Pair<A>,
    /// Source and destination port, before translation.
    pub ports: Ports,
    /// IP protocol number.
    pub protocol: u8,
    side: u8,
    padding: u16,
}

const _: () = assert!(size_of::<Tuple<Ipv4Address>>() == 16);
const _: () = assert!(size_of::<Tuple<Ipv6Address>>() == 40);

// SAFETY: all fields are zeroable.
unsafe impl<A: Zeroable> Zeroable for Tuple<A> {}
// SAFETY: `repr(C)` with explicit padding, as the size assertions above prove for both address types.
unsafe impl<A: Pod> Pod for Tuple<A> {}
#[cfg(feature = "user")]
// SAFETY: it is `bytemuck::Pod`, which asks for more than aya's.
unsafe impl<A: Pod> aya::Pod for Tuple<A> {}

impl<A: Address> Tuple<A> {
    /// The tuple of a packet that arrived on `side`.
    #[inline(always)]
    pub const fn new(side: Side, protocol: u8, addresses: Pair<A>, ports: Ports) -> Self {
        Self {
            addresses,
            ports,
            protocol,
            side: side as u8,
            padding: 0,
        }
    }

    /// The interface that the packet arrived on; `None` for a key that this version did not write.
    pub const fn side(&self) -> Option<Side> {
        Side::from_number(self.side as u32)
    }
}
