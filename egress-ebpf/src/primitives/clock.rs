//! The time, from the cheapest clock of the kernel.

use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

use super::maps;

/// A flow's time stamp is refreshed when it is older than this, so at most once a second.
pub const RESOLUTION_NS: u64 = 1_000_000_000;

/// `CLOCK_MONOTONIC` in nanoseconds, accurate to a few milliseconds.
#[inline(always)]
pub fn now_ns() -> u64 {
    if maps::COARSE_CLOCK.load() != 0 {
        // SAFETY: the helper takes no arguments and cannot fail.
        unsafe { bpf_ktime_get_coarse_ns() }
    } else {
        // SAFETY: as above.
        unsafe { bpf_ktime_get_ns() }
    }
}
