//! Cached next hops, which save a kernel lookup per packet.

use egress_common::{AddressKey, NextHopRef, Side};

use crate::primitives::{family::KernelFamily, maps, packet::Packet};

/// The next hop towards `destination` on the interface of `side`. If it is unknown, it is entered into `UNRESOLVED_V4`
/// or `UNRESOLVED_V6`, for userspace to resolve.
#[inline(always)]
pub fn find<F: KernelFamily>(side: Side, destination: F::Address, now_ns: u64) -> NextHopRef {
    let key = AddressKey::new(side, destination);
    if let Some(reference) = F::routes().get_ptr(&key) {
        // SAFETY: the pointer comes from a lookup. The reference is one word, and its generation reveals a stale one.
        return unsafe { *reference };
    }
    // If this insertion fails, a later packet tries again.
    let _ = F::unresolved().insert(&key, &now_ns, 0);
    NextHopRef::NONE
}

/// Writes the MAC addresses of the next hop into the frame. Returns `true` if the next hop is valid.
#[inline(always)]
pub fn address(packet: &Packet, reference: NextHopRef, now_ns: u64) -> bool {
    let Some(hop) = maps::NEXT_HOPS.get_ptr(reference.index()) else {
        return false;
    };
    // SAFETY: the pointer comes from a lookup. While userspace writes the element, a frame may get a mix of two
    // addresses.
    let hop = unsafe { &*hop };
    hop.is_valid(reference, now_ns) && packet.store(0, hop.macs).is_ok()
}
