//! Flow events: a flow was opened or has ended.
//!
//! Without a subscriber, this costs two loads when a flow is opened or ended.

use egress_common::{
    Bytes as _, Change, ETHERNET_HEADER_LEN, EndOrder, FlowEvent, Outcome, Side, Subscriber, Tuple,
};

use crate::primitives::{
    clock, counters,
    family::KernelFamily,
    maps,
    packet::Packet,
    scratch::{EventBuffer, EventSlot},
    subscribers::{is_served, lease_ns},
};

#[inline(always)]
fn has_subscribers() -> bool {
    lease_ns(Subscriber::Log) | lease_ns(Subscriber::Follow) != 0
}

/// Emits the event of an opened flow. `reply` is its reply tuple.
#[inline(always)]
pub fn opened<F: KernelFamily>(tuple: &Tuple<F::Address>, reply: &Tuple<F::Address>) {
    if has_subscribers() && capture::<F>(tuple, reply, EventSlot::Packets) {
        emit_event::<F>(EventSlot::Packets, Change::Opened);
    }
}

/// Removes a flow from the table, and emits the event of its end. `reply` is its reply tuple.
#[inline(always)]
pub fn end<F: KernelFamily>(
    tuple: &Tuple<F::Address>,
    reply: &Tuple<F::Address>,
    slot: EventSlot,
    change: Change,
) {
    let is_captured = has_subscribers() && capture::<F>(tuple, reply, slot);
    // This fails if another CPU has ended the flow first, which then emits the event.
    let is_ended = F::flows().remove(tuple).is_ok();
    let _ = F::flows().remove(reply);
    if is_captured && is_ended {
        emit_event::<F>(slot, change);
    }
}

/// Captures a flow in `slot`. Returns `false` if the flow is not in the table.
#[inline(always)]
fn capture<F: KernelFamily>(
    tuple: &Tuple<F::Address>,
    reply: &Tuple<F::Address>,
    slot: EventSlot,
) -> bool {
    let Some(buffer) = F::temp_event(slot) else {
        return false;
    };
    buffer.event.tuple = *tuple;
    buffer.reply = *reply;
    capture_entries::<F>(slot)
}

// These functions take no packet, because the timer has none.

global_fn! {
    /// Copies both entries of the flow whose tuples are in `slot`. Returns `false` if the table does not have them.
    fn capture_entries<F>(slot: EventSlot) -> bool = copy_entries::<F>;
    V4 => capture_flow_v4, V6 => capture_flow_v6
}

global_fn! {
    /// Emits the event in `slot`.
    fn emit_event<F>(slot: EventSlot, change: Change) -> () = emit::<F>;
    V4 => emit_flow_event_v4, V6 => emit_flow_event_v6
}

#[inline(always)]
fn copy_entries<F: KernelFamily>(slot: EventSlot) -> bool {
    let Some(EventBuffer { event, reply }) = F::temp_event(slot) else {
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

#[inline(always)]
fn emit<F: KernelFamily>(slot: EventSlot, change: Change) {
    let Some(EventBuffer { event, .. }) = F::temp_event(slot) else {
        return;
    };
    let now_ns = clock::now_ns();
    event.set_change(change as u32, now_ns);
    // The flow log's lease does not expire.
    if lease_ns(Subscriber::Log) != 0
        && maps::FLOW_LOG
            .output_untyped::<FlowEvent<F::Address>>(&*event, 0)
            .is_err()
    {
        counters::count_lost(Subscriber::Log);
    }
    if is_served(Subscriber::Follow, now_ns)
        && maps::FOLLOW
            .output_untyped::<FlowEvent<F::Address>>(&*event, 0)
            .is_err()
    {
        counters::count_lost(Subscriber::Follow);
    }
}

/// Ends the flow that userspace names by an [`EndOrder`] in a frame.
///
/// # Errors
///
/// [`Outcome::Malformed`] if the frame contains no valid order, [`Outcome::NotAnOpening`] if there is no such flow.
#[inline(always)]
pub fn end_by_order<F: KernelFamily>(packet: &Packet) -> Result<(), Outcome> {
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
    end::<F>(&order.tuple, &reply, EventSlot::Userspace, change);
    Ok(())
}
