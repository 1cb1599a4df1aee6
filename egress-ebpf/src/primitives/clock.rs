//! The time, as cheap as the kernel has it.

use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

use super::maps;

/// A flow's time stamp is written when it is older than this, so at most once a second.
pub const RESOLUTION_NS: u64 = 1_000_000_000;

/// `CLOCK_MONOTONIC` in nanoseconds, exact to a few milliseconds.
#[inline(always)]
pub fn now_ns() -> u64 {
    if maps::COARSE_CLOCK.load() != 0 {
        // SAFETY: the helper takes nothing and cannot fail.
        unsafe { bpf_ktime_get_coarse_ns() }
    } else {
        // SAFETY: as above.
        unsafe { bpf_ktime_get_ns() }
    }
}
