//! A rate limit for the packets that the router itself sends.

use super::{clock, maps};

/// At most 1,000 packets per second per CPU, in bursts of 100. Only clients and servers of the router receive them.
const BURST: u32 = 100;
const INTERVAL_NS: u64 = 100_000_000;

/// Returns `true` if this CPU may send another packet.
#[inline(always)]
pub fn is_within_limit() -> bool {
    let Some(limit) = maps::ERROR_LIMIT.get_ptr_mut(0) else {
        return false;
    };
    let now_ns = clock::now_ns();
    // SAFETY: the element belongs to this CPU.
    unsafe {
        if now_ns.wrapping_sub((*limit).since_ns) > INTERVAL_NS {
            (*limit).since_ns = now_ns;
            (*limit).sent = 0;
        }
        (*limit).sent += 1;
        (*limit).sent <= BURST
    }
}
