//! Ending flows: idle ones by a timer in the kernel, for which no process is needed, and expendable ones when the table is
//! full.
//!
//! Each flow has an item in a queue. Ten times a second the oldest items are taken out, their flows looked at, and those
//! that live on put back at the end; so a large table costs a little all the time instead of much at once.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::bpf_timer,
    helpers::{bpf_loop, bpf_timer_init, bpf_timer_set_callback, bpf_timer_start},
};
use egress_common::{Change, Flow, FlowState, Outcome, Side, V4, V6};

use crate::{
    clock, counters,
    events::{self, Slot},
    family::Pipeline,
    maps,
    packet::Packet,
};

/// `CLOCK_MONOTONIC` of `linux/time.h`.
const CLOCK_MONOTONIC: u64 = 1;
/// `-EBUSY`: the timer is there already.
const EBUSY: i64 = -16;
const TICK_NS: u64 = 100_000_000;
/// How many flows of a family are looked at in a tick: 262,144 in three seconds and a half.
const BATCH: u32 = 8192;
/// How many flows a packet looks at to find room.
const LOOKS: u32 = 32;

/// The value of `SWEEPER`.
#[repr(C)]
pub struct Sweeper {
    timer: bpf_timer,
}

/// Starts the timer. It runs until the map `SWEEPER` is neither open in a process nor pinned.
#[inline(always)]
pub fn start() -> Result<(), i64> {
    let sweeper = maps::SWEEPER.get_ptr_mut(0).ok_or(0_i64)?;
    // SAFETY: the timer is a field of the map's value, as the helpers want it.
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

// The verifier wants callbacks to be static functions, so they have no exported name.

extern "C" fn on_tick(_map: *mut c_void, _key: *mut u32, sweeper: *mut Sweeper) -> i32 {
    // SAFETY: the callbacks are functions of this program, and the timer is the one that called.
    unsafe {
        bpf_loop(BATCH, look_at_v4 as *mut c_void, core::ptr::null_mut(), 0);
        bpf_loop(BATCH, look_at_v6 as *mut c_void, core::ptr::null_mut(), 0);
        bpf_timer_start(&raw mut (*sweeper).timer, TICK_NS, 0);
    }
    0
}

extern "C" fn look_at_v4(_index: u32, _context: *mut c_void) -> i64 {
    look_at_next::<V4>()
}

extern "C" fn look_at_v6(_index: u32, _context: *mut c_void) -> i64 {
    look_at_next::<V6>()
}

/// The number of the tick that it is now.
#[inline(always)]
pub fn tick() -> u32 {
    // Not exactly a tenth of a second, but cheap to compute.
    (clock::now_ns() >> 27) as u32
}

/// Looks at the flow whose turn it is: 0 to go on, 1 when none is due.
#[inline(always)]
fn look_at_next<F: Pipeline>() -> i64 {
    match F::sweep_queue().peek() {
        Ok(Some(item)) if item.is_due(tick()) => {}
        _ => return 1,
    }
    match look::<F>(Search::Idle) {
        Look::Nothing => 1,
        Look::Gone | Look::Ended | Look::Kept => 0,
    }
}

/// Which flows are ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Search {
    /// Those that have been idle for longer than their state allows.
    Idle,
    /// Those, and the ones that may be ended to make room.
    Expendable,
}

/// What was found at the front of the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// The queue is empty.
    Nothing,
    /// The item of a flow that has ended before.
    Gone,
    /// A flow, which was ended.
    Ended,
    /// A flow that lives on, now at the end of the queue.
    Kept,
}

/// Looks at the flow at the front of the queue.
#[inline(always)]
pub fn look<F: Pipeline>(search: Search) -> Look {
    let Ok(Some(mut item)) = F::sweep_queue().pop() else {
        return Look::Nothing;
    };
    let Some(original) = F::flows().get_ptr(&item.tuple) else {
        return Look::Gone;
    };
    // SAFETY: the pointers come from lookups, and the kernel keeps their memory until the program ends.
    let original: &Flow<F::Address> = unsafe { &*original };
    if !item.is_of(original.opened_ns) {
        // Another flow has the tuple now, and an item of its own.
        return Look::Gone;
    }
    let protocol = item.tuple.protocol;
    let reply_tuple = original.translation.peer(Side::Cluster, protocol);
    let change = match (F::flows().get_ptr(&reply_tuple), maps::CONFIG.get(0)) {
        (Some(reply), Some(config)) => {
            // SAFETY: as above.
            let reply = unsafe { &*reply };
            let state = FlowState::of(protocol, original, reply);
            let idle_ns = Flow::idle_ns(original, reply, clock::now_ns());
            if idle_ns > state.timeout_ns(&config.timeouts) {
                Some(Change::Idle)
            } else if search == Search::Expendable && state.is_expendable() {
                Some(Change::Evicted)
            } else {
                None
            }
        }
        _ => Some(Change::Idle),
    };
    if let Some(change) = change {
        events::end::<F>(&item.tuple, &reply_tuple, Slot::Packets, change);
        return Look::Ended;
    }
    item.tick = tick();
    // There is room: its own place.
    let _ = F::sweep_queue().push(&item, 0);
    Look::Kept
}

/// Ends a flow of a full table that is not open yet or has ended, the oldest first, to make room for a new one.
///
/// Only the [`LOOKS`] flows at the front of the queue are looked at, and go to its end, so that a packet costs little; the
/// next packet goes on where this one has stopped.
///
/// # Errors
///
/// [`Outcome::FlowTableFull`] if those are all open.
#[inline(always)]
pub fn make_room<F: Pipeline>(packet: &Packet) -> Result<(), Outcome> {
    let mut is_place_in_the_queue = false;
    for _ in 0..LOOKS {
        // A call, so that the verifier does not follow each way through each turn of the loop.
        match F::look_for_room(packet) {
            Look::Ended => {
                counters::count_evicted();
                return Ok(());
            }
            Look::Nothing => break,
            // Where the queue was what was full, of flows that packets have ended, there is room now.
            Look::Gone => is_place_in_the_queue = true,
            Look::Kept => {}
        }
    }
    if is_place_in_the_queue {
        Ok(())
    } else {
        Err(Outcome::FlowTableFull)
    }
}
