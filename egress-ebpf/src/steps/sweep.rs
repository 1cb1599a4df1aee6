//! Ending flows: expiry by a timer in the kernel, for which no process is needed, and eviction when the table is full.
//!
//! Each flow has an item in the sweep queue. Ten times a second the timer pops the oldest items, visits their flows,
//! and pushes those that live on again. So a large table costs a little all the time instead of much at once.

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
/// `-EBUSY`: the timer is there already.
const EBUSY: i64 = -16;
const TICK_NS: u64 = 100_000_000;
/// How many flows of a family a tick visits: 262,144 in three seconds and a half.
const VISITS_PER_TICK: u32 = 8192;
/// How many flows a packet visits to find room.
const VISITS_PER_PACKET: u32 = 32;

/// Starts the timer. It runs until the map `SWEEPER` is neither open in a process nor pinned.
#[inline(always)]
pub fn start() -> Result<(), i64> {
    let sweeper = maps::SWEEPER.get_ptr_mut(0).ok_or(0_i64)?;
    // SAFETY: the timer is a field of the map's value, as the helpers require.
    unsafe {
        let timer = &raw mut (*sweeper).timer;
        let map = core::ptr::from_ref(&maps::SWEEPER).cast_mut().cast();
        match bpf_timer_init(timer, map, CLOCK_MONOTONIC) {
            // Where the map was taken over the timer runs already, and only gets another callback.
            0 | EBUSY => {}
            error => return Err(error),
        }
        bpf_timer_set_callback(timer, on_tick as *mut c_void);
        match bpf_timer_start(timer, TICK_NS, 0) {
            0 => Ok(()),
            error => Err(error),
        }
    }
}

// The verifier requires static functions for callbacks, so these have no exported name.

extern "C" fn on_tick(_map: *mut c_void, _key: *mut u32, sweeper: *mut Sweeper) -> i32 {
    // SAFETY: the callbacks are functions of this program, and the timer is the one that called.
    unsafe {
        bpf_loop(
            VISITS_PER_TICK,
            visit_v4 as *mut c_void,
            core::ptr::null_mut(),
            0,
        );
        bpf_loop(
            VISITS_PER_TICK,
            visit_v6 as *mut c_void,
            core::ptr::null_mut(),
            0,
        );
        bpf_timer_start(&raw mut (*sweeper).timer, TICK_NS, 0);
    }
    0
}

extern "C" fn visit_v4(_index: u32, _context: *mut c_void) -> i64 {
    visit_next_due::<V4>()
}

extern "C" fn visit_v6(_index: u32, _context: *mut c_void) -> i64 {
    visit_next_due::<V6>()
}

/// The number of the tick that it is now.
#[inline(always)]
pub fn tick() -> u32 {
    // Not exactly a tenth of a second, but cheap to compute.
    (clock::now_ns() >> 27) as u32
}

/// Visits the flow whose turn it is: 0 to go on, 1 if none is due.
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

/// Which flows are ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Those that have been idle for longer than their state allows.
    Expiry,
    /// Those, and the ones that may be ended to make room.
    Eviction,
}

/// What was found at the front of the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Visit {
    /// Nothing.
    QueueEmpty = 0,
    /// The item of a flow that has ended before. It is gone.
    Stale = 1,
    /// A flow, which was ended.
    Ended = 2,
    /// A flow that lives on, now at the end of the queue.
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
        // Another flow has the tuple now, and an item of its own.
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
    // There is room: what it left itself.
    let _ = F::sweep_queue().push(&item, 0);
    Visit::Kept
}

global_fn! {
    /// Makes room in a full table for a new flow, by ending one that is not established: the oldest first.
    ///
    /// It visits only the [`VISITS_PER_PACKET`] flows at the front of the queue, which go to its end, so that a packet
    /// costs little. The next packet goes on where this one has stopped.
    ///
    /// # Errors
    ///
    /// [`Outcome::FlowTableFull`] if those are all established.
    pub fn make_room<F>() -> Result<(), Outcome> = evict::<F>;
    V4 => make_room_v4, V6 => make_room_v6
}

global_fn! {
    /// [`visit`], by a call, so that the verifier does not follow each path through each turn of the loop.
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
            // If it was the queue that was full, of flows that packets have ended, there is room now.
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
