//! Fragments of IP packets.
//!
//! Only the first fragment has the ports that identify a flow. They are stored under a key that all fragments of the
//! packet share, so that the later fragments find the flow. A few later fragments that arrive first are held until the
//! first one arrives.

use bytemuck::{Pod, Zeroable};

use crate::{
    network::{Address, Ipv4Address, Ipv6Address, Pair, Ports, protocol},
    outcome::Outcome,
    tuple::Side,
};

/// The part of a packet that a frame contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The whole packet.
    Whole,
    /// The first fragment, with the transport header.
    First,
    /// A later fragment.
    Later,
}

/// The fragment fields of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The identification, which all fragments of a packet share.
    pub id: u32,
    /// The offset in the packet's payload, in bytes.
    pub offset: u16,
    /// `true` if this is not the last fragment.
    pub more: bool,
}

impl Fragment {
    /// The part of the packet that this fragment is.
    #[inline(always)]
    pub const fn part(&self) -> Part {
        match (self.offset, self.more) {
            (0, false) => Part::Whole,
            (0, true) => Part::First,
            _ => Part::Later,
        }
    }

    /// Checks a later fragment with `len` bytes of payload.
    ///
    /// # Errors
    ///
    /// [`Outcome::BadFragment`] if it would overwrite the transport header, whose ports were translated (RFC 1858), or
    /// if it ends beyond 64 KiB.
    #[inline(always)]
    pub const fn check(&self, protocol: u8, len: usize) -> Result<(), Outcome> {
        let header = if protocol == protocol::TCP { 20 } else { 8 };
        if self.offset < header || self.offset as usize + len > u16::MAX as usize {
            return Err(Outcome::BadFragment);
        }
        Ok(())
    }
}

/// The key that all fragments of a packet share, in `FRAGMENTS_V4`, `FRAGMENTS_V6`, `HELD_V4` and `HELD_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentKey<A> {
    /// Source and destination address, before translation.
    pub addresses: Pair<A>,
    /// Identification, in network byte order.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u8,
    side: u8,
    /// The index among the packet's held fragments; 0 in `FRAGMENTS_V4` and `FRAGMENTS_V6`.
    pub index: u16,
}

impl<A: Address> FragmentKey<A> {
    /// The key of a packet that arrives on `side`.
    #[inline(always)]
    pub const fn new(side: Side, protocol: u8, addresses: Pair<A>, id: u32) -> Self {
        Self {
            addresses,
            id,
            protocol,
            side: side as u8,
            index: 0,
        }
    }
}

/// The first fragment of a packet: the value of `FRAGMENTS_V4` and `FRAGMENTS_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstFragment {
    /// Its ports, before translation.
    pub ports: Ports,
    /// The bytes of the packet's payload that have arrived so far.
    pub received: u16,
    /// The length of the packet's payload in bytes; 0 until the last fragment arrives.
    pub total: u16,
    /// When the first fragment arrived: `CLOCK_MONOTONIC` in nanoseconds.
    pub seen_ns: u64,
}

impl FirstFragment {
    /// How long later fragments are accepted: as long as Linux waits (`net.ipv4.ipfrag_time`).
    const LIFETIME_NS: u64 = 30_000_000_000;

    /// Adds a later fragment with `len` bytes of payload. Returns `true` if the packet is now complete, after which its
    /// sender may reuse the identification.
    ///
    /// A duplicate is counted again. The sum then misses the total as a rule, and the entry stays until it expires.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "a checked fragment ends within 64 KiB"
    )]
    pub const fn is_completed_by(&mut self, fragment: &Fragment, len: usize) -> bool {
        self.received = self.received.wrapping_add(len as u16);
        if !fragment.more {
            self.total = fragment.offset.wrapping_add(len as u16);
        }
        self.total != 0 && self.received == self.total
    }

    /// Returns `true` if later fragments are no longer accepted.
    #[inline(always)]
    pub const fn is_expired(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.seen_ns) > Self::LIFETIME_NS
    }
}

/// The longest frame that is held. It fits the usual MTU of 1500.
pub const HELD_LEN: usize = 1536;

/// A held fragment: the value of `HELD_V4` and `HELD_V6`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HeldFragment {
    /// When it arrived: `CLOCK_MONOTONIC` in nanoseconds.
    pub seen_ns: u64,
    /// The length of the frame in `frame`.
    pub len: u32,
    /// Explicit padding.
    pub padding: u32,
    /// The frame as it arrived.
    pub frame: [u8; HELD_LEN],
}

impl HeldFragment {
    /// The maximum number of held fragments of one packet.
    pub const PER_PACKET: u16 = 8;

    /// How long a fragment is held. Reordering in a network is faster than this.
    const LIFETIME_NS: u64 = 1_000_000_000;

    /// Returns `true` if it has been held for too long.
    #[inline(always)]
    pub const fn is_expired(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.seen_ns) > Self::LIFETIME_NS
    }
}

const _: () = assert!(size_of::<HeldFragment>() == HELD_LEN + 16);
const _: () = assert!(size_of::<FragmentKey<Ipv4Address>>() == 16);
const _: () = assert!(size_of::<FragmentKey<Ipv6Address>>() == 40);
const _: () = assert!(size_of::<FirstFragment>() == 16);

// SAFETY: all fields are zeroable.
unsafe impl<A: Zeroable> Zeroable for FragmentKey<A> {}
// SAFETY: `repr(C)` with explicit padding, as the size assertions prove for both address types.
unsafe impl<A: Pod> Pod for FragmentKey<A> {}
// SAFETY: all fields are zeroable.
unsafe impl Zeroable for FirstFragment {}
// SAFETY: `repr(C)` with explicit padding, as the size assertion proves.
unsafe impl Pod for FirstFragment {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_complete_when_all_of_it_has_come_in_whatever_order() {
        let part = |offset, more| Fragment {
            id: 1,
            offset,
            more,
        };
        let mut first = FirstFragment {
            ports: Ports {
                source: crate::Port::new(1),
                destination: crate::Port::new(2),
            },
            received: 800,
            total: 0,
            seen_ns: 0,
        };
        assert!(!first.is_completed_by(&part(1600, false), 100));
        assert!(first.is_completed_by(&part(800, true), 800));
        assert!(!first.is_completed_by(&part(800, true), 800), "twice");
    }

    #[test]
    fn what_would_overwrite_the_header_or_overflow_the_packet_is_bad() {
        let fragment = |offset| Fragment {
            id: 1,
            offset,
            more: false,
        };
        for (protocol, offset, len, good) in [
            (protocol::TCP, 8, 100, false),
            (protocol::TCP, 16, 100, false),
            (protocol::TCP, 24, 100, true),
            (protocol::UDP, 8, 100, true),
            (protocol::UDP, 65_528, 7, true),
            (protocol::UDP, 65_528, 8, false),
        ] {
            assert_eq!(
                fragment(offset).check(protocol, len).is_ok(),
                good,
                "{protocol} at {offset}, {len} long"
            );
        }
    }
}
