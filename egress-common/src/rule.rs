//! Redirect rules, and the addresses that they answer for.

use bytemuck::{Pod, Zeroable};

use crate::{
    network::{Address, Ipv4Address, Ipv6Address, Port},
    tuple::Side,
};

/// What a rule listens to: the key of `RULES_V4` and `RULES_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct RuleKey {
    /// The port that clients connect to.
    pub port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// The set that the rule belongs to: 0 or 1, see [`RuleSet`](crate::RuleSet).
    pub set: u8,
}

impl RuleKey {
    /// The key of the rule of this set for this protocol and port.
    #[inline(always)]
    pub const fn new(set: u8, protocol: u8, port: Port) -> Self {
        Self {
            port,
            protocol,
            set,
        }
    }
}

/// Where a rule sends its connections: the value of `RULES_V4` and `RULES_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule<A> {
    /// The server.
    pub destination: A,
    /// The server's port; the client's own where the spec names none.
    pub target_port: Port,
    padding: u16,
    /// The rule's index in `RULE_COUNTERS`, which it keeps as long as it stays the same.
    pub id: u32,
}

impl<A> Rule<A> {
    /// A rule that sends its connections to `destination` and `target_port`.
    pub const fn new(destination: A, target_port: Port, id: u32) -> Self {
        Self {
            destination,
            target_port,
            padding: 0,
            id,
        }
    }

    /// The fallback's rule for the port that a client uses.
    pub const fn fallback(destination: A, port: Port, id: u32) -> Self {
        Self::new(destination, port, id)
    }
}

/// An address that one of the router's interfaces has: the key of `ADDRESSES_V4` and `ADDRESSES_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressKey<A> {
    /// The interface's own address.
    pub address: A,
    side: u32,
}

impl<A: Address> AddressKey<A> {
    /// The key for `address` on the interface of `side`.
    #[inline(always)]
    pub const fn new(side: Side, address: A) -> Self {
        Self {
            address,
            side: side as u32,
        }
    }

    /// The interface that has the address; `None` for a key that this version did not write.
    pub const fn side(&self) -> Option<Side> {
        Side::from_number(self.side)
    }
}

const _: () = assert!(size_of::<Rule<Ipv4Address>>() == 12);
const _: () = assert!(size_of::<Rule<Ipv6Address>>() == 24);
const _: () = assert!(size_of::<AddressKey<Ipv4Address>>() == 8);
const _: () = assert!(size_of::<AddressKey<Ipv6Address>>() == 20);

// SAFETY: all fields are zeroable.
unsafe impl<A: Zeroable> Zeroable for Rule<A> {}
// SAFETY: `repr(C)` with explicit padding, as the size assertions prove for both address types.
unsafe impl<A: Pod> Pod for Rule<A> {}
// SAFETY: all fields are zeroable.
unsafe impl<A: Zeroable> Zeroable for AddressKey<A> {}
// SAFETY: `repr(C)` with explicit padding, as the size assertions prove for both address types.
unsafe impl<A: Pod> Pod for AddressKey<A> {}

#[cfg(feature = "user")]
mod user {
    use super::{AddressKey, Pod, Rule, RuleKey};

    // SAFETY: `bytemuck::Pod` asks for more than aya's.
    unsafe impl aya::Pod for RuleKey {}
    // SAFETY: as above.
    unsafe impl<A: Pod> aya::Pod for Rule<A> {}
    // SAFETY: as above.
    unsafe impl<A: Pod> aya::Pod for AddressKey<A> {}
}
