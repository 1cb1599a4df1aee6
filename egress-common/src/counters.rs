//! What is counted.

use bytemuck::{Pod, Zeroable};

/// Packets and bytes.
///
/// Packets are counted as they are on the wire: a segmentation-offload packet counts as the segments it stands for.
/// Bytes are those of the IP packet as it passed through the router, so such a packet's headers count once.
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
// SAFETY: `bytemuck::Pod` asks for more than aya's.
unsafe impl aya::Pod for RuleCounters {}
