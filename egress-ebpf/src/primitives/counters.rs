//! Per-CPU counters.

use egress_common::{Outcome, Side, Subscriber};

use super::maps;

/// Counts a packet that is not forwarded.
#[inline(always)]
pub fn count(outcome: Outcome) {
    if let Some(counter) = maps::COUNTERS.get_ptr_mut(outcome as u32) {
        // SAFETY: the element belongs to this CPU.
        unsafe { *counter += 1 };
    }
}

/// Counts an evicted flow.
#[inline(always)]
pub fn count_evicted() {
    if let Some(counter) = maps::EVICTED.get_ptr_mut(0) {
        // SAFETY: the element belongs to this CPU.
        unsafe { *counter += 1 };
    }
}

/// Counts a record that was lost because the subscriber's ring buffer was full.
#[inline(always)]
pub fn count_lost(subscriber: Subscriber) {
    if let Some(counter) = maps::EVENTS_LOST.get_ptr_mut(subscriber as u32) {
        // SAFETY: the element belongs to this CPU.
        unsafe { *counter += 1 };
    }
}

/// Counts a flow that a rule opened.
#[inline(always)]
pub fn count_flow(rule: u32) {
    if let Some(counters) = maps::RULE_COUNTERS.get_ptr_mut(rule) {
        // SAFETY: the element belongs to this CPU.
        unsafe { (*counters).flows += 1 };
    }
}

/// Counts forwarded packets of a rule's flow.
#[inline(always)]
pub fn count_traffic(rule: u32, side: Side, packets: u64, bytes: u64) {
    if let Some(counters) = maps::RULE_COUNTERS.get_ptr_mut(rule) {
        // SAFETY: the element belongs to this CPU.
        unsafe {
            let traffic = match side {
                Side::Cluster => &raw mut (*counters).traffic.original,
                Side::Egress => &raw mut (*counters).traffic.reply,
            };
            (*traffic).packets += packets;
            (*traffic).bytes += bytes;
        }
    }
}
