//! Next hops: the MAC addresses for a destination, resolved in advance.
//!
//! Userspace copies them from the kernel's neighbour table. Each one is valid for a limited time, which userspace
//! renews. If userspace stops, the kernel half soon falls back to a kernel lookup (`bpf_redirect_neigh`).

use bytemuck::{Pod, Zeroable};

/// The number of next hops, for both interfaces and families. Index 0 means none.
pub const NEXT_HOPS: u32 = 4096;

/// A next hop: an element of the array `NEXT_HOPS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct NextHop {
    /// The first 12 octets of a frame to the next hop: its MAC address and the interface's own.
    pub macs: [u8; 12],
    /// The reference by which flows find this next hop, but not an earlier one at the same index.
    pub reference: NextHopRef,
    /// The end of validity: `CLOCK_MONOTONIC` in nanoseconds.
    pub valid_until_ns: u64,
}

const _: () = assert!(size_of::<NextHop>() == 24);

/// A flow's reference to a next hop: an index in `NEXT_HOPS`, and a generation that changes when the element does.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct NextHopRef(u32);

impl NextHopRef {
    /// No next hop is known.
    pub const NONE: Self = Self(0);

    /// A reference to the element at `index`, in its `generation`. The index is below [`NEXT_HOPS`] and not 0.
    pub const fn new(index: u32, generation: u32) -> Self {
        Self(generation.wrapping_mul(NEXT_HOPS) | (index % NEXT_HOPS))
    }

    /// The index in `NEXT_HOPS`.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 % NEXT_HOPS
    }

    /// Returns `true` if no next hop is known.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl NextHop {
    /// Returns `true` if this is the next hop of `reference` and is valid at this time.
    #[inline(always)]
    pub const fn is_valid(&self, reference: NextHopRef, now_ns: u64) -> bool {
        self.reference.0 == reference.0 && now_ns < self.valid_until_ns
    }
}

#[cfg(feature = "user")]
mod user {
    use super::{NextHop, NextHopRef};

    // SAFETY: the type is `bytemuck::Pod`, which requires more than aya's `Pod`.
    unsafe impl aya::Pod for NextHop {}
    // SAFETY: as above.
    unsafe impl aya::Pod for NextHopRef {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_finds_its_next_hop_and_no_other_in_its_place() {
        let reference = NextHopRef::new(7, 3);
        let hop = NextHop {
            macs: [1; 12],
            reference,
            valid_until_ns: 100,
        };
        assert_eq!(reference.index(), 7);
        assert!(hop.is_valid(reference, 99));
        assert!(!hop.is_valid(reference, 100), "too late");
        assert!(
            !hop.is_valid(NextHopRef::new(7, 2), 99),
            "another was there"
        );
        assert!(
            !NextHop::zeroed().is_valid(NextHopRef::NONE, 0),
            "never good"
        );
        assert!(NextHopRef::NONE.is_none() && !reference.is_none());
    }
}
