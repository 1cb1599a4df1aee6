//! Settings that the kernel half reads.

use bytemuck::{Pod, Zeroable};

use crate::{
    network::{Ipv4Address, Ipv6Address},
    ports::NatRange,
    timeouts::Timeouts,
    tuple::Side,
};

/// What all rules of a set have in common.
///
/// There are two sets, and one of them is in force. A change of the rules fills the other, which is then put in force by
/// one word: no packet meets half of the old and half of the new rules.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct RuleSet {
    /// The reserved IPv4 address that flows leave with; unspecified for none.
    pub reserved_v4: Ipv4Address,
    /// The reserved IPv6 address that flows leave with; unspecified for none.
    pub reserved_v6: Ipv6Address,
    /// Where IPv4 packets without a rule go; unspecified for nowhere.
    pub fallback_v4: Ipv4Address,
    /// Where IPv6 packets without a rule go; unspecified for nowhere.
    pub fallback_v6: Ipv6Address,
    /// The rule id that the fallback's flows are counted by.
    pub fallback_rule: u32,
}

/// What packets read: the only value of the array `CONFIG`. All zeros until it is filled; nothing is forwarded then.
///
/// What only processes read is in [`InstanceInfo`](crate::InstanceInfo).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Config {
    /// Which of [`Self::rule_sets`] is in force: 0 or 1, and [`RuleKey::set`](crate::RuleKey::set) of its rules.
    pub rule_set: u32,
    /// The cluster interface's MTU in bytes; 0 for any.
    pub cluster_mtu: u32,
    /// The egress interface's MTU in bytes; 0 for any.
    pub egress_mtu: u32,
    /// Ports that flows may use.
    pub nat_range: NatRange,
    /// Both sets.
    pub rule_sets: [RuleSet; 2],
    /// How long idle flows live.
    pub timeouts: Timeouts,
}

impl Config {
    /// The number of the set that is in force.
    #[inline(always)]
    pub const fn rules_in_force(&self) -> u8 {
        (self.rule_set & 1) as u8
    }

    /// The set with this number.
    #[inline(always)]
    pub const fn rule_set(&self, number: u8) -> &RuleSet {
        &self.rule_sets[(number & 1) as usize]
    }

    /// The largest IP packet that may leave by the interface of `side`.
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
// SAFETY: `bytemuck::Pod` asks for more than aya's.
unsafe impl aya::Pod for Config {}
