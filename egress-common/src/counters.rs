//! Counters of rules and flows.

use bytemuck::{Pod, Zeroable};

/// Packets and bytes.
///
/// A segmentation-offload packet counts as the packets that it becomes on the wire. Its headers count once, because
/// bytes are those of the IP packet that passed through the router.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Traffic {
    /// Number of packets.
    pub packets: u64,
    /// Number of bytes, from the IP header on.
    pub bytes: u64,
}

impl core::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

/// A value for each direction.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Directional<T> {
    /// From the client to the server.
    pub original: T,
    /// From the server to the client.
    pub reply: T,
}

/// A rule's counters: the value of the per-CPU array `RULE_COUNTERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCounters {
    /// Flows that the rule opened.
    pub flows: u64,
    /// What the rule's flows carried.
    pub traffic: Directional<Traffic>,
}

impl core::ops::AddAssign for RuleCounters {
    fn add_assign(&mut self, other: Self) {
        self.flows = self.flows.wrapping_add(other.flows);
        self.traffic.original += other.traffic.original;
        self.traffic.reply += other.traffic.reply;
    }
}

const _: () = assert!(size_of::<RuleCounters>() == 40);

// SAFETY: all fields are zeroable.
unsafe impl Zeroable for RuleCounters {}
// SAFETY: five `u64`, without padding, as the size assertion proves.
unsafe impl Pod for RuleCounters {}
#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`, which requires more than aya's `Pod`.
unsafe impl aya::Pod for RuleCounters {}
