//! Who reads records from the kernel half, and until when.

use egress_common::Subscriber;

use super::maps;

/// The lease of a subscriber: `CLOCK_MONOTONIC` in nanoseconds, 0 if nobody has subscribed.
#[inline(always)]
pub fn lease_ns(subscriber: Subscriber) -> u64 {
    match maps::SUBSCRIBERS.get_ptr(subscriber as u32) {
        // SAFETY: the pointer comes from a lookup. It is one word, which userspace may write meanwhile.
        Some(lease) => unsafe { lease.read_volatile() },
        None => 0,
    }
}

/// Whether a subscriber is to be served at this time. A lease that has expired is removed.
#[inline(always)]
pub fn is_served(subscriber: Subscriber, now_ns: u64) -> bool {
    let lease_ns = lease_ns(subscriber);
    if lease_ns == 0 {
        return false;
    }
    if now_ns < lease_ns {
        return true;
    }
    if let Some(lease) = maps::SUBSCRIBERS.get_ptr_mut(subscriber as u32) {
        // SAFETY: as above. A process that has renewed the lease just now does so again soon.
        unsafe { lease.write_volatile(0) };
    }
    false
}
