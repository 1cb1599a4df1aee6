//! Fragments of IP packets.
//!
//! Only the first fragment has the ports that name a flow. They are remembered by what all fragments of a packet share, so
//! that the others find the flow as well. Some that come before the first one are held until it comes.

use bytemuck::{Pod, Zeroable};

use crate::{
    network::{Address, Ipv4Address, Ipv6Address, Pair, Ports, protocol},
    outcome::Outcome,
    tuple::Side,
};

/// Which part of a packet this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first fragment, with the transport header.
    First,
    /// Another fragment.
    Later,
}

/// What an IP header says of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The same in all fragments of a packet.
    pub id: u32,
    /// Where this one belongs, in bytes from the start of the packet's payload.
    pub offset: u16,
    /// Whether others follow.
    pub more: bool,
}

impl Fragment {
    /// Which part of its packet this is.
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
    /// reaches beyond the largest packet.
    #[inline(always)]
    pub const fn check(&self, protocol: u8, len: usize) -> Result<(), Outcome> {
        let header = if protocol == protocol::TCP { 20 } else { 8 };
        if self.offset < header || self.offset as usize + len > u16::MAX as usize {
            return Err(Outcome::BadFragment);
        }
        Ok(())
    }
}

/// What all fragments of a packet share: the key of `FRAGMENTS_V4` and `FRAGMENTS_V6`, and of `HELD_V4` and `HELD_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentKey<A> {
    /// Source and destination address, before translation.
    pub addresses: Pair<A>,
    /// Identification; network byte order.
    pub id: u32,
    /// IP protocol number.
    pub protocol: u8,
    side: u8,
    /// Which of the fragments that came before the first one; 0 for the first one itself.
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

/// What the first fragment of a packet told: the value of `FRAGMENTS_V4` and `FRAGMENTS_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirstFragment {
    /// Its ports, before translation.
    pub ports: Ports,
    /// How many bytes of the packet's payload have come so far.
    pub received: u16,
    /// How many there are; 0 while the last fragment has not come.
    pub total: u16,
    /// When it came: `CLOCK_MONOTONIC` in nanoseconds.
    pub seen_ns: u64,
}

impl FirstFragment {
    /// How long others may come after it: as long as Linux waits (`net.ipv4.ipfrag_time`).
    const LIFETIME_NS: u64 = 30_000_000_000;

    /// Notes another fragment, with `len` bytes of payload. Whether the packet is complete: its sender may use its
    /// identification again.
    ///
    /// Fragments that come twice are counted twice, and so make no packet complete.
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

    /// Whether it is too long ago.
    #[inline(always)]
    pub const fn is_expired(&self, now_ns: u64) -> bool {
        now_ns.saturating_sub(self.seen_ns) > Self::LIFETIME_NS
    }
}

/// The longest frame that is held: one of an interface with the usual MTU of 1500.
pub const HELD_LEN: usize = 1536;

/// A fragment that came before the first one: the value of `HELD_V4` and `HELD_V6`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct HeldFragment {
    /// When it came: `CLOCK_MONOTONIC` in nanoseconds.
    pub seen_ns: u64,
    /// How much of `frame` it is.
    pub len: u32,
    /// Explicit padding.
    pub padding: u32,
    /// The frame as it arrived.
    pub frame: [u8; HELD_LEN],
}

impl HeldFragment {
    /// How many fragments of a packet are held.
    pub const PER_PACKET: u16 = 8;

    /// How long a fragment waits for the first one: what a network reorders comes sooner.
    const LIFETIME_NS: u64 = 1_000_000_000;

    /// Whether it has waited for too long.
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
