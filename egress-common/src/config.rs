//! Settings that the kernel half reads when a flow is opened, and that tell one router from another.

use bytemuck::{Pod, Zeroable};

use crate::{
    network::{Ipv4Address, Ipv6Address},
    ports::NatRange,
    timeouts::Timeouts,
    tuple::Side,
};

/// The version of every map layout in this crate. A reader that finds another one does not touch the maps.
pub const LAYOUT_VERSION: u32 = 6;

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

/// How changes of the spec of a running router went.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Reloads {
    /// How many were applied.
    pub applied: u32,
    /// How many were refused.
    pub refused: u32,
    /// When the rules in force were put there: `CLOCK_MONOTONIC` in nanoseconds.
    pub applied_ns: u64,
    /// When the last one was refused, if none was applied since: `CLOCK_MONOTONIC` in nanoseconds, else 0.
    pub refused_ns: u64,
    /// Why it was refused: UTF-8, as much as fits, filled up with zeros.
    pub error: [u8; 512],
}

/// The only value of the array `CONFIG`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Config {
    /// [`LAYOUT_VERSION`] of whoever made the maps. 0: not filled yet.
    pub layout_version: u32,
    /// Index of the cluster interface (`eth0`) in the router's network namespace.
    pub cluster_ifindex: u32,
    /// Index of the egress interface (`net1`) in the router's network namespace.
    pub egress_ifindex: u32,
    /// Process that runs the router; 0 for none.
    pub pid: u32,
    /// Inode of the router's network namespace (`stat /proc/self/ns/net`), which tells routers on one node apart.
    pub netns_inode: u64,
    /// When the router was started: `CLOCK_MONOTONIC` in nanoseconds.
    pub started_ns: u64,
    /// Ports that flows may use.
    pub nat_range: NatRange,
    /// How many flows the table of a family holds at most.
    pub max_flows: u32,
    /// Which of [`Self::rule_sets`] is in force: 0 or 1, and [`RuleKey::set`](crate::RuleKey::set) of its rules.
    pub rule_set: u32,
    /// Both sets.
    pub rule_sets: [RuleSet; 2],
    /// The cluster interface's MTU in bytes; 0 for any.
    pub cluster_mtu: u32,
    /// The egress interface's MTU in bytes; 0 for any.
    pub egress_mtu: u32,
    /// 1 where the kernel half ends idle flows by itself; 0 where userspace does.
    pub kernel_expiry: u32,
    /// How often the process has numbered the next hops anew.
    pub next_hop_generation: u32,
    /// Fills up to the next field.
    pub filler: u32,
    /// How long idle flows live.
    pub timeouts: Timeouts,
    /// How changes of the spec went.
    pub reloads: Reloads,
}

impl Reloads {
    /// As much of a message as fits, at the end of a character.
    pub fn message(text: &str) -> [u8; 512] {
        let mut message = [0; 512];
        let mut len = text.len().min(message.len());
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        message[..len].copy_from_slice(&text.as_bytes()[..len]);
        message
    }

    /// Why the last one was refused; `None` if it was not.
    pub fn error(&self) -> Option<&str> {
        if self.refused_ns == 0 {
            return None;
        }
        let len = self.error.iter().position(|byte| *byte == 0);
        core::str::from_utf8(&self.error[..len.unwrap_or(self.error.len())]).ok()
    }
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
