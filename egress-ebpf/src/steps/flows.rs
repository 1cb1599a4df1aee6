//! The flow table.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use egress_common::{
    Bytes as _, ETHERNET_HEADER_LEN, Flow, FlowState, NextHopRef, Side, Translation,
    TransportHeader, Tuple, tcp,
};

use super::next_hop;
use crate::primitives::{clock, counters, family::KernelFamily, packet::Packet};

/// A flow entry in the flow table.
///
/// The kernel keeps an element's memory until the program ends. If the flow ends in the meantime, another flow may
/// reuse the memory. In the worst case, a packet is then counted for the wrong flow.
pub struct FlowRef<F: KernelFamily>(*mut Flow<F::Address>);

/// The flow that a packet with this tuple belongs to.
#[inline(always)]
pub fn find<F: KernelFamily>(tuple: &Tuple<F::Address>) -> Option<FlowRef<F>> {
    F::flows().get_ptr_mut(tuple).map(FlowRef)
}

impl<F: KernelFamily> FlowRef<F> {
    #[inline(always)]
    pub fn translation(&self) -> &Translation<F::Address> {
        // SAFETY: the pointer comes from a lookup, see the type. A flow's translation never changes.
        unsafe { &(*self.0).translation }
    }

    /// The whole entry.
    #[inline(always)]
    pub const fn entry(&self) -> &Flow<F::Address> {
        // SAFETY: the pointer comes from a lookup, see the type. Concurrent packets write only single words.
        unsafe { &*self.0 }
    }

    /// The other direction's entry, for packets that arrive on `side`.
    #[inline(always)]
    pub fn peer(&self, side: Side, protocol: u8) -> Option<Self> {
        find(&self.translation().peer(side, protocol))
    }

    /// Returns `true` if a client's packet opens a new connection on the tuple of one that has ended or is about to.
    #[inline(always)]
    pub fn is_reopened_by(&self, tuple: &Tuple<F::Address>, transport: &TransportHeader) -> bool {
        if !transport.flags.is_open_request() || !transport.may_open {
            return false;
        }
        match self.peer(Side::Cluster, tuple.protocol) {
            Some(reply) => FlowState::of(tuple.protocol, self.entry(), reply.entry()).is_closing(),
            None => true,
        }
    }

    /// The cached next hop, or [`NextHopRef::NONE`] to force a kernel lookup.
    ///
    /// The packet that refreshes the time stamp forces one, about once a second. This tells the kernel's neighbour
    /// table that the neighbour is in use, and makes it probe the neighbour.
    #[inline(always)]
    pub const fn next_hop(&self, accounted: Accounted) -> NextHopRef {
        // SAFETY: the pointer comes from a lookup, see the type.
        unsafe {
            if accounted.is_refreshed {
                return NextHopRef::NONE;
            }
            (*self.0).next_hop
        }
    }

    /// Looks up the next hop again, for packets that arrive on `side`.
    #[inline(always)]
    pub fn renew_next_hop(&self, side: Side, now_ns: u64) {
        let destination = self.translation().addresses.destination;
        let reference = next_hop::find::<F>(side.opposite(), destination, now_ns);
        // SAFETY: the pointer comes from a lookup, see the type. The reference is one word.
        unsafe { (*self.0).next_hop = reference };
    }

    /// Adds a packet to the counters of the flow and its rule, and refreshes the flow's time stamp.
    #[inline(always)]
    pub fn account(
        &self,
        packet: &Packet,
        side: Side,
        flags: tcp::Flags,
        acknowledgment: u32,
    ) -> Accounted {
        let flow = self.0;
        let packets = packet.segments();
        let bytes = (packet.len() - ETHERNET_HEADER_LEN) as u64;
        let now_ns = clock::now_ns();
        let mut is_refreshed = false;
        // SAFETY: the pointer comes from a lookup, see the type. Several CPUs may write at once. The counters are added
        // to atomically, either time stamp is good enough, and the next segment restores a lost flag.
        let rule = unsafe {
            // These are written only when they change, so that CPUs can share the cache line.
            if now_ns.wrapping_sub((*flow).last_seen_ns) > clock::RESOLUTION_NS {
                (*flow).last_seen_ns = now_ns;
                is_refreshed = true;
            }
            let seen = (*flow).seen.with(flags);
            if seen != (*flow).seen {
                (*flow).seen = seen;
            }
            // This is in the cache line that the counters below are written to anyway.
            if acknowledgment != 0 {
                (*flow).ack_or_tag = acknowledgment;
            }
            atomic_xadd::<_, _, { AtomicOrdering::Relaxed }>(
                &raw mut (*flow).traffic.packets,
                packets,
            );
            atomic_xadd::<_, _, { AtomicOrdering::Relaxed }>(&raw mut (*flow).traffic.bytes, bytes);
            (*flow).rule
        };
        counters::count_traffic(rule, side, packets, bytes);
        Accounted {
            now_ns,
            is_refreshed,
        }
    }

    /// Records the tag that an SCTP packet with INIT or INIT ACK announces, if it is the first. A later one may be
    /// forged, or may open a new association between the same ends.
    #[inline(always)]
    pub fn remember_tag(&self, packet: &Packet, transport: usize) {
        let Some(tag) = packet.load::<u32>(transport + TransportHeader::INITIATE_TAG_OFFSET) else {
            return;
        };
        let flow = self.0;
        // SAFETY: the pointer comes from a lookup, see the type.
        unsafe {
            if (*flow).ack_or_tag == 0 {
                (*flow).ack_or_tag = tag;
            }
        }
    }
}

/// What is known about an accounted packet.
#[derive(Clone, Copy)]
pub struct Accounted {
    pub now_ns: u64,
    /// `true` if this packet refreshed the flow's time stamp, which happens about once a second.
    pub is_refreshed: bool,
}
