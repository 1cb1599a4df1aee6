//! Next hops that are known, so that the kernel need not look for them with each packet.

use egress_common::{AddressKey, NextHopRef, Side};

use crate::{family::Pipeline, maps, packet::Packet};

/// The next hop towards `destination`, out of the interface of `side`. Userspace is told of those that are not known.
#[inline(always)]
pub fn find<F: Pipeline>(side: Side, destination: F::Address, now_ns: u64) -> NextHopRef {
    let key = AddressKey::new(side, destination);
    if let Some(reference) = F::routes().get_ptr(&key) {
        // SAFETY: the pointer comes from a lookup. It is one word, and a stale one is told by its number.
        return unsafe { *reference };
    }
    // Without room for it the kernel is asked for longer.
    let _ = F::unresolved().insert(&key, &now_ns, 0);
    NextHopRef::NONE
}

/// Addresses the frame to its next hop. Whether that could be done.
#[inline(always)]
pub fn address(packet: &Packet, reference: NextHopRef, now_ns: u64) -> bool {
    let Some(hop) = maps::NEXT_HOPS.get_ptr(reference.index()) else {
        return false;
    };
    // SAFETY: the pointer comes from a lookup. While userspace writes there, a frame may get half of two addresses.
    let hop = unsafe { &*hop };
    hop.is_good(reference, now_ns) && packet.store(0, hop.macs).is_ok()
}
