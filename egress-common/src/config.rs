//! The settings that the kernel half reads.

use bytemuck::{Pod, Zeroable};

use crate::{
    network::{Ipv4Address, Ipv6Address},
    ports::NatRange,
    timeouts::Timeouts,
    tuple::Side,
};

/// The part of a rule set that its rules share.
///
/// There are two sets, one of which is in force. A reload fills the other, then switches to it by writing one word. No
/// packet sees a mix of old and new rules.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct RuleSet {
    /// The reserved IPv4 address; unspecified for none.
    pub reserved_v4: Ipv4Address,
    /// The reserved IPv6 address; unspecified for none.
    pub reserved_v6: Ipv6Address,
    /// The fallback for IPv4; unspecified for none.
    pub fallback_v4: Ipv4Address,
    /// The fallback for IPv6; unspecified for none.
    pub fallback_v6: Ipv6Address,
    /// The rule id that counts the fallback's flows.
    pub fallback_rule: u32,
}

/// The settings that the kernel half reads for packets: the only element of the array `CONFIG`. It is all zeros until
/// it is filled, and nothing is forwarded until then.
///
/// What only processes read is in [`InstanceInfo`](crate::InstanceInfo).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Config {
    /// The set in force, 0 or 1: an index of [`Self::rule_sets`], and [`RuleKey::set`](crate::RuleKey::set) of its
    /// rules.
    pub rule_set: u32,
    /// The cluster interface's MTU in bytes; 0 for no limit.
    pub cluster_mtu: u32,
    /// The egress interface's MTU in bytes; 0 for no limit.
    pub egress_mtu: u32,
    /// The NAT range.
    pub nat_range: NatRange,
    /// Both rule sets.
    pub rule_sets: [RuleSet; 2],
    /// The idle timeouts.
    pub timeouts: Timeouts,
}

impl Config {
    /// The number of the rule set in force.
    #[inline(always)]
    pub const fn rules_in_force(&self) -> u8 {
        (self.rule_set & 1) as u8
    }

    /// The rule set with this number.
    #[inline(always)]
    pub const fn rule_set(&self, number: u8) -> &RuleSet {
        &self.rule_sets[(number & 1) as usize]
    }

    /// The largest IP packet, in bytes, that may leave through the interface of `side`.
    #[inline(always)]
    pub const fn mtu(&self, side: Side) -> u32 {
        let mtu = match side {
            Side::Cluster => self.cluster_mtu,
            Side::Egress => self.egress_mtu,
        };
        if mtu == 0 { u32::MAX } else { mtu }
    }
}

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`, which requires more than aya's `Pod`.
unsafe impl aya::Pod for Config {}
