//! Settings that the kernel half reads when a flow is opened, and that tell one router from another.

use bytemuck::{Pod, Zeroable};

use crate::{
    network::{Ipv4Address, Ipv6Address},
    ports::NatRange,
    timeouts::Timeouts,
    tuple::Side,
};

/// The version of every map layout in this crate. A reader that finds another one does not touch the maps.
pub const LAYOUT_VERSION: u32 = 5;

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
    /// The reserved IPv4 address that flows leave with; unspecified for none.
    pub reserved_v4: Ipv4Address,
    /// The reserved IPv6 address that flows leave with; unspecified for none.
    pub reserved_v6: Ipv6Address,
    /// How many flows the table of a family holds at most.
    pub max_flows: u32,
    /// Where IPv4 packets without a rule go; unspecified for nowhere.
    pub fallback_v4: Ipv4Address,
    /// Where IPv6 packets without a rule go; unspecified for nowhere.
    pub fallback_v6: Ipv6Address,
    /// The rule id that the fallback's flows are counted by.
    pub fallback_rule: u32,
    /// The cluster interface's MTU in bytes; 0 for any.
    pub cluster_mtu: u32,
    /// The egress interface's MTU in bytes; 0 for any.
    pub egress_mtu: u32,
    /// 1 where the kernel half ends idle flows by itself; 0 where userspace does.
    pub kernel_expiry: u32,
    /// How long idle flows live.
    pub timeouts: Timeouts,
}

impl Config {
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
