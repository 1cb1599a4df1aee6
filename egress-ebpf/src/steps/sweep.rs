//! Ending flows: expiry by a timer in the kernel, which needs no process, and eviction from a full table.
//!
//! Each flow has an item in the sweep queue. Ten times a second the timer pops the oldest items, visits their flows,
//! and pushes the items of live flows again. This spreads the cost of a large table over time.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_loop, bpf_timer_init, bpf_timer_set_callback, bpf_timer_start};
use egress_common::{Change, Flow, FlowState, Outcome, Side, V4, V6};

use super::events;
use crate::primitives::{
    clock, counters,
    family::KernelFamily,
    maps::{self, Sweeper},
    scratch::EventSlot,
};

/// `CLOCK_MONOTONIC` of `linux/time.h`.
const CLOCK_MONOTONIC: u64 = 1;
/// `-EBUSY`: the timer is initialised already.
const EBUSY: i64 = -16;
const RUN_INTERVAL_NS: u64 = 100_000_000;
/// Flows of each family that a run of the timer visits. At ten runs a second, 262,144 flows take 3.2 seconds.
const VISITS_PER_RUN: u32 = 8192;
/// Flows that a packet visits to find room.
const VISITS_PER_PACKET: u32 = 32;

/// Starts the timer. It runs as long as the map `SWEEPER` is open in a process or pinned.
#[inline(always)]
pub fn start() -> Result<(), i64> {
    let sweeper = maps::SWEEPER.get_ptr_mut(0).ok_or(0_i64)?;
    // SAFETY: the timer is a field of the map's value, as the helpers require.
    unsafe {
        let timer = &raw mut (*sweeper).timer;
        let map = core::ptr::from_ref(&maps::SWEEPER).cast_mut().cast();
        match bpf_timer_init(timer, map, CLOCK_MONOTONIC) {
            // If the map was taken over, the timer runs already, and only its callback is replaced.
            0 | EBUSY => {}
            error => return Err(error),
        }
        bpf_timer_set_callback(timer, on_tick as *mut c_void);
        match bpf_timer_start(timer, RUN_INTERVAL_NS, 0) {
            0 => Ok(()),
            error => Err(error),
        }
    }
}

// The verifier requires static functions as callbacks, so these have no exported names.

extern "C" fn on_tick(_map: *mut c_void, _key: *mut u32, sweeper: *mut Sweeper) -> i32 {
    // SAFETY: the callbacks are functions of this program, and the timer is the one that called this function.
    unsafe {
        bpf_loop(
            VISITS_PER_RUN,
            visit_v4 as *mut c_void,
            core::ptr::null_mut(),
            0,
        );
        bpf_loop(
            VISITS_PER_RUN,
            visit_v6 as *mut c_void,
            core::ptr::null_mut(),
            0,
        );
        bpf_timer_start(&raw mut (*sweeper).timer, RUN_INTERVAL_NS, 0);
    }
    0
}

extern "C" fn visit_v4(_index: u32, _context: *mut c_void) -> i64 {
    visit_next_due::<V4>()
}

extern "C" fn visit_v6(_index: u32, _context: *mut c_void) -> i64 {
    visit_next_due::<V6>()
}

/// The number of the current tick.
#[inline(always)]
pub fn tick() -> u32 {
    // A tick is 2^27 ns, which a shift computes.
    (clock::now_ns() >> 27) as u32
}

/// Visits the flow at the front of the queue if its visit is due. Returns 0 to continue, 1 if no visit is due.
#[inline(always)]
fn visit_next_due<F: KernelFamily>() -> i64 {
    match F::sweep_queue().peek() {
        Ok(Some(item)) if item.is_due(tick()) => {}
        _ => return 1,
    }
    match visit::<F>(Purpose::Expiry) {
        Visit::QueueEmpty => 1,
        Visit::Stale | Visit::Ended | Visit::Kept => 0,
    }
}

/// Which flows a visit ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Flows that have been idle for longer than the timeout of their state.
    Expiry,
    /// Those, and flows that may be evicted.
    Eviction,
}

/// The result of a visit.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    /// The queue is empty.
    QueueEmpty = 0,
    /// The item's flow had ended before. The item is removed.
    Stale = 1,
    /// The flow was ended.
    Ended = 2,
    /// The flow lives on. Its item is now at the end of the queue.
    Kept = 3,
}

word_enum!(Visit: QueueEmpty, Stale, Ended or Kept);

/// Visits the flow at the front of the queue.
#[inline(always)]
fn visit<F: KernelFamily>(purpose: Purpose) -> Visit {
    let Ok(Some(mut item)) = F::sweep_queue().pop() else {
        return Visit::QueueEmpty;
    };
    let Some(original) = F::flows().get_ptr(&item.tuple) else {
        return Visit::Stale;
    };
    // SAFETY: the pointers come from lookups, and the kernel keeps their memory until the program ends.
    let original: &Flow<F::Address> = unsafe { &*original };
    if !item.is_of(original.opened_ns) {
        // Another flow has the tuple now. It has an item of its own.
        return Visit::Stale;
    }
    let protocol = item.tuple.protocol;
    let reply_tuple = original.translation.peer(Side::Cluster, protocol);
    let change = match (F::flows().get_ptr(&reply_tuple), maps::config()) {
        (Some(reply), Ok(config)) => {
            // SAFETY: as above.
            let reply = unsafe { &*reply };
            let state = FlowState::of(protocol, original, reply);
            let idle_ns = Flow::idle_ns(original, reply, clock::now_ns());
            if idle_ns > state.timeout_ns(&config.timeouts) {
                Some(Change::Idle)
            } else if purpose == Purpose::Eviction && state.is_expendable() {
                Some(Change::Evicted)
            } else {
                None
            }
        }
        _ => Some(Change::Idle),
    };
    if let Some(change) = change {
        events::end::<F>(&item.tuple, &reply_tuple, EventSlot::Packets, change);
        return Visit::Ended;
    }
    item.tick = tick();
    // The queue has room, because the item has just left it.
    let _ = F::sweep_queue().push(&item, 0);
    Visit::Kept
}

global_fn! {
    /// Makes room for a new flow in a full table: evicts the oldest flow that is not established.
    ///
    /// It visits at most [`VISITS_PER_PACKET`] flows at the front of the queue and moves them to its end, so that a
    /// packet costs little. The next packet continues there.
    ///
    /// # Errors
    ///
    /// [`Outcome::FlowTableFull`] if none of them may be evicted.
    pub fn make_room<F>() -> Result<(), Outcome> = evict::<F>;
    V4 => make_room_v4, V6 => make_room_v6
}

global_fn! {
    /// Calls [`visit`], so that the verifier does not follow all of its paths in each iteration of the loop.
    fn visit_for_eviction<F>() -> Visit = visit_expendable::<F>;
    V4 => visit_for_room_v4, V6 => visit_for_room_v6
}

#[inline(always)]
fn evict<F: KernelFamily>() -> Result<(), Outcome> {
    let mut queue_has_room = false;
    for _ in 0..VISITS_PER_PACKET {
        match visit_for_eviction::<F>() {
            Visit::Ended => {
                counters::count_evicted();
                return Ok(());
            }
            Visit::QueueEmpty => break,
            // If the full table was the sweep queue, the removed item has left room in it.
            Visit::Stale => queue_has_room = true,
            Visit::Kept => {}
        }
    }
    if queue_has_room {
        Ok(())
    } else {
        Err(Outcome::FlowTableFull)
    }
}

#[inline(always)]
fn visit_expendable<F: KernelFamily>() -> Visit {
    visit::<F>(Purpose::Eviction)
}
