//! Redirect rules, and the addresses of the router.

use bytemuck::{Pod, Zeroable};

use crate::{
    network::{Address, Ipv4Address, Ipv6Address, Port},
    tuple::Side,
};

/// The protocol and port of a rule: the key of `RULES_V4` and `RULES_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct RuleKey {
    /// The port that clients connect to.
    pub port: Port,
    /// IP protocol number.
    pub protocol: u8,
    /// The rule set, 0 or 1; see [`RuleSet`](crate::RuleSet).
    pub set: u8,
}

impl RuleKey {
    /// The key of a rule of this set.
    #[inline(always)]
    pub const fn new(set: u8, protocol: u8, port: Port) -> Self {
        Self {
            port,
            protocol,
            set,
        }
    }
}

/// The destination of a rule: the value of `RULES_V4` and `RULES_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule<A> {
    /// The server's address.
    pub destination: A,
    /// The server's port. Without a `targetPort` in the spec, it is the rule's own port.
    pub target_port: Port,
    padding: u16,
    /// The rule id: the index in `RULE_COUNTERS`, which the rule keeps across reloads.
    pub id: u32,
}

impl<A> Rule<A> {
    /// A rule with this destination, target port and id.
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

/// An address of one of the router's interfaces: the key of `ADDRESSES_V4` and `ADDRESSES_V6`. Next hops use it as
/// well, with the address of a client or server: the key of `ROUTES_V4`, `ROUTES_V6`, `UNRESOLVED_V4` and
/// `UNRESOLVED_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressKey<A> {
    /// The address.
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

    /// The interface; `None` for a key of another version.
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

    // SAFETY: the type is `bytemuck::Pod`, which requires more than aya's `Pod`.
    unsafe impl aya::Pod for RuleKey {}
    // SAFETY: as above.
    unsafe impl<A: Pod> aya::Pod for Rule<A> {}
    // SAFETY: as above.
    unsafe impl<A: Pod> aya::Pod for AddressKey<A> {}
}
