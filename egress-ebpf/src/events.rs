//! Telling those who listen that a flow was opened or has ended.
//!
//! While nobody listens it costs two loads, and only where flows are opened or ended.

use egress_common::{
    Bytes as _, Change, ETHERNET_HEADER_LEN, EndOrder, FlowEvent, Outcome, Side, Subscriber, Tuple,
};

use crate::{clock, counters, family::Pipeline, maps, packet::Packet};

/// Where an event is put together.
///
/// The program that userspace runs may be interrupted by those that packets run, so it has one of its own.
#[derive(Clone, Copy)]
pub enum Slot {
    /// Of programs that packets run, and of the timer. These do not interrupt each other.
    Packets = 0,
    /// Of the program that userspace runs.
    Userspace = 1,
}

/// An event that is put together, and what it takes.
#[repr(C)]
pub struct Draft<A> {
    event: FlowEvent<A>,
    /// The tuple of the flow's answers.
    reply: Tuple<A>,
}

/// Until when a subscriber listens; 0 if it does not.
#[inline(always)]
pub fn until(subscriber: Subscriber) -> u64 {
    match maps::SUBSCRIBERS.get_ptr(subscriber as u32) {
        // SAFETY: the pointer comes from a lookup. It is one word, which userspace may write meanwhile.
        Some(until) => unsafe { until.read_volatile() },
        None => 0,
    }
}

/// Whether a subscriber listens at this time. One whose process has gone is switched off.
#[inline(always)]
pub fn listens(subscriber: Subscriber, now_ns: u64) -> bool {
    let until_ns = until(subscriber);
    if until_ns == 0 {
        return false;
    }
    if now_ns < until_ns {
        return true;
    }
    if let Some(until) = maps::SUBSCRIBERS.get_ptr_mut(subscriber as u32) {
        // SAFETY: as above. A process that has just put it off does so again soon.
        unsafe { until.write_volatile(0) };
    }
    false
}

#[inline(always)]
fn has_listeners() -> bool {
    until(Subscriber::Log) | until(Subscriber::Follow) != 0
}

/// Tells that a flow was opened, if anyone listens. `reply` is the tuple of its answers.
#[inline(always)]
pub fn opened<F: Pipeline>(tuple: &Tuple<F::Address>, reply: &Tuple<F::Address>) {
    if has_listeners() && is_noted::<F>(tuple, reply, Slot::Packets) {
        F::tell(Slot::Packets, Change::Opened);
    }
}

/// Takes a flow out of the table, and tells why, if anyone listens. `reply` is the tuple of its answers.
#[inline(always)]
pub fn end<F: Pipeline>(
    tuple: &Tuple<F::Address>,
    reply: &Tuple<F::Address>,
    slot: Slot,
    change: Change,
) {
    let is_noted = has_listeners() && is_noted::<F>(tuple, reply, slot);
    // Gone already if another CPU ended it first; that one tells.
    let is_ended = F::flows().remove(tuple).is_ok();
    let _ = F::flows().remove(reply);
    if is_noted && is_ended {
        F::tell(slot, change);
    }
}

#[inline(always)]
fn is_noted<F: Pipeline>(tuple: &Tuple<F::Address>, reply: &Tuple<F::Address>, slot: Slot) -> bool {
    let Some(draft) = F::draft(slot as u32) else {
        return false;
    };
    draft.event.tuple = *tuple;
    draft.reply = *reply;
    F::note(slot)
}

/// Completes the draft in `slot`, which has the flow's tuples, by what the table has of the flow. Whether it has.
#[inline(always)]
pub fn note<F: Pipeline>(slot: u32) -> bool {
    let Some(Draft { event, reply }) = F::draft(slot) else {
        return false;
    };
    let (Some(original), Some(reply)) = (
        F::flows().get_ptr(&event.tuple),
        F::flows().get_ptr(&*reply),
    ) else {
        return false;
    };
    // SAFETY: the pointers come from lookups, and the kernel keeps their memory until the program ends.
    unsafe {
        event.original = *original;
        event.reply = *reply;
    }
    true
}

/// Hands the event in `slot` to those who listen. A full ring buffer takes none, and the lost ones are counted.
#[inline(always)]
pub fn tell<F: Pipeline>(slot: u32, change: u32) {
    let Some(Draft { event, .. }) = F::draft(slot) else {
        return;
    };
    let now_ns = clock::now_ns();
    event.happened(change, now_ns);
    // The flow log's time is never up.
    if until(Subscriber::Log) != 0
        && maps::FLOW_LOG
            .output_untyped::<FlowEvent<F::Address>>(&*event, 0)
            .is_err()
    {
        counters::count_lost(Subscriber::Log);
    }
    if listens(Subscriber::Follow, now_ns)
        && maps::FOLLOW
            .output_untyped::<FlowEvent<F::Address>>(&*event, 0)
            .is_err()
    {
        counters::count_lost(Subscriber::Follow);
    }
}

/// Ends the flow that an [`EndOrder`] in a frame from userspace means.
///
/// # Errors
///
/// [`Outcome::Malformed`] if the frame has no such order, [`Outcome::NotAnOpening`] if there is no such flow.
#[inline(always)]
pub fn end_by_order<F: Pipeline>(packet: &Packet) -> Result<(), Outcome> {
    let order: EndOrder<F::Address> = packet.load(ETHERNET_HEADER_LEN).ok_or(Outcome::Malformed)?;
    let change = Change::from_number(order.change).ok_or(Outcome::Malformed)?;
    let original = F::flows()
        .get_ptr(&order.tuple)
        .ok_or(Outcome::NotAnOpening)?;
    // SAFETY: the pointer comes from a lookup, and the kernel keeps its memory until the program ends.
    let original = unsafe { &*original };
    if original.opened_ns != order.opened_ns {
        return Err(Outcome::NotAnOpening);
    }
    let reply = original
        .translation
        .peer(Side::Cluster, order.tuple.protocol);
    end::<F>(&order.tuple, &reply, Slot::Userspace, change);
    Ok(())
}
