//! The subscribers' leases.

use egress_common::Subscriber;

use super::maps;

/// The lease of a subscriber: `CLOCK_MONOTONIC` in nanoseconds; 0 if nobody has subscribed.
#[inline(always)]
pub fn lease_ns(subscriber: Subscriber) -> u64 {
    match maps::SUBSCRIBERS.get_ptr(subscriber as u32) {
        // SAFETY: the pointer comes from a lookup. The lease is one word, which userspace may write at the same time.
        Some(lease) => unsafe { lease.read_volatile() },
        None => 0,
    }
}

/// Returns `true` if the subscriber's lease is valid at this time. Removes a lease that has expired.
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
        // SAFETY: as above. If this overwrites a lease that a process has just renewed, the process renews it again
        // soon.
        unsafe { lease.write_volatile(0) };
    }
    false
}
