//! The tuple, which identifies a flow.

use bytemuck::{Pod, Zeroable};

use crate::network::{Address, Ipv4Address, Ipv6Address, Pair, Ports};

/// The interface that a packet arrived on. The numbers are part of map keys and records, and never change.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// `eth0`, the side of the clients. Flows are opened from here.
    Cluster = 0,
    /// `net1`, the side of the servers. Replies arrive here.
    Egress = 1,
}

impl Side {
    /// The side on which a forwarded packet leaves.
    #[inline(always)]
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Cluster => Self::Egress,
            Self::Egress => Self::Cluster,
        }
    }

    /// The side with this number.
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Cluster),
            1 => Some(Self::Egress),
            _ => None,
        }
    }
}

/// The tuple of a packet as it arrived: the key of `FLOWS_V4` and `FLOWS_V6`.
///
/// The side is part of the key. A packet on `net1` therefore never matches an entry for `eth0`, whatever addresses it
/// claims.
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
// SAFETY: the type is `bytemuck::Pod`, which requires more than aya's `Pod`.
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

    /// The side; `None` for a key of another version.
    pub const fn side(&self) -> Option<Side> {
        Side::from_number(self.side as u32)
    }
}
