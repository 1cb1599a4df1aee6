//! Next hops: whom the kernel would hand a packet to, resolved beforehand.
//!
//! Userspace keeps them as the kernel's neighbour table has them. Each is good until a time that userspace puts off again
//! and again, so that without it the kernel half asks the kernel soon (`bpf_redirect_neigh`).

use bytemuck::{Pod, Zeroable};

/// How many next hops are kept, of both interfaces and families. The first stands for none.
pub const NEXT_HOPS: u32 = 4096;

/// A next hop: an element of the array `NEXT_HOPS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct NextHop {
    /// The first 12 octets of a frame that is sent there: its own MAC address, and the interface's.
    pub macs: [u8; 12],
    /// The reference that flows have to this next hop, and not to one that was in its place before.
    pub reference: NextHopRef,
    /// Until when it is good: `CLOCK_MONOTONIC` in nanoseconds.
    pub valid_until_ns: u64,
}

const _: () = assert!(size_of::<NextHop>() == 24);

/// A flow's reference to a next hop: its place in `NEXT_HOPS`, and a number that changes when what is there does.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct NextHopRef(u32);

impl NextHopRef {
    /// No next hop is known.
    pub const NONE: Self = Self(0);

    /// The next hop at `index`, below [`NEXT_HOPS`] and not 0, for the `generation`-th time.
    pub const fn new(index: u32, generation: u32) -> Self {
        Self(generation.wrapping_mul(NEXT_HOPS) | (index % NEXT_HOPS))
    }

    /// Its place in `NEXT_HOPS`.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 % NEXT_HOPS
    }

    /// Whether no next hop is known.
    #[inline(always)]
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }
}

impl NextHop {
    /// Whether this is the next hop that `reference` means, and good at this time.
    #[inline(always)]
    pub const fn is_good(&self, reference: NextHopRef, now_ns: u64) -> bool {
        self.reference.0 == reference.0 && now_ns < self.valid_until_ns
    }
}

#[cfg(feature = "user")]
mod user {
    use super::{NextHop, NextHopRef};

    // SAFETY: `bytemuck::Pod` asks for more than aya's.
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
        assert!(hop.is_good(reference, 99));
        assert!(!hop.is_good(reference, 100), "too late");
        assert!(!hop.is_good(NextHopRef::new(7, 2), 99), "another was there");
        assert!(
            !NextHop::zeroed().is_good(NextHopRef::NONE, 0),
            "never good"
        );
        assert!(NextHopRef::NONE.is_none() && !reference.is_none());
    }
}
