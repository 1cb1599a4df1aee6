//! Tracing: records of packets and what was decided for them.
//!
//! Without a subscriber, a packet costs two loads and two branches that are not taken.

use aya_ebpf::helpers::bpf_skb_load_bytes;
use egress_common::{
    Bytes as _, Decision, Outcome, Side, Subscriber, TRACE_FRAME_LEN, TraceFilter, TraceRecord, V4,
    V6,
};

use super::{flows, forward::Forward, parse};
use crate::primitives::{
    clock, counters,
    family::KernelFamily,
    global::Word as _,
    maps,
    packet::{IPV4, IPV6, Packet},
    scratch::TraceBuffer,
    subscribers,
};

/// Captures a packet that arrives on `side`, if the filter admits it.
#[inline(always)]
pub fn capture(packet: &Packet, side: Side) {
    if is_on() {
        capture_packet(packet, side);
    }
}

/// Emits the trace record of the captured packet, with the decision.
#[inline(always)]
pub fn emit(packet: &Packet, forward: &Result<Forward, Outcome>) {
    if is_on() {
        let decision = match forward {
            Ok(forward) => forward.decision(),
            Err(outcome) => Decision::Refused(*outcome),
        };
        emit_record(packet, decision.number());
    }
}

#[inline(always)]
fn is_on() -> bool {
    subscribers::lease_ns(Subscriber::Trace) != 0
}

global_fn! {
    fn capture_packet(packet: &Packet, side: Side) -> () = capture_either_family;
    capture_traced_packet
}

global_fn! {
    /// `decision` is a [`Decision`] by its number.
    fn emit_record(packet: &Packet, decision: u32) -> () = emit_either_family;
    emit_trace_record
}

#[inline(always)]
fn capture_either_family(packet: &Packet, side: Side) {
    match packet.ether_type() {
        IPV4 => capture_family::<V4>(packet, side),
        IPV6 => capture_family::<V6>(packet, side),
        _ => {}
    }
}

#[inline(always)]
fn emit_either_family(packet: &Packet, decision: u32) {
    match packet.ether_type() {
        IPV4 => emit_family::<V4>(decision),
        IPV6 => emit_family::<V6>(decision),
        _ => {}
    }
}

#[inline(always)]
fn capture_family<F: KernelFamily>(packet: &Packet, side: Side) {
    let now_ns = clock::now_ns();
    let (Some(buffer), Some(filter)) = (F::temp_trace(), maps::TRACE_FILTER.get(0)) else {
        return;
    };
    buffer.is_wanted = 0;
    if !subscribers::is_served(Subscriber::Trace, now_ns) {
        return;
    }
    let record = &mut buffer.record;
    record.time_ns = now_ns;
    record.side = side as u32;
    record.len = packet.len() as u32;
    if let Some(len) = copy(packet, &mut record.frame) {
        record.frame_len = len;
        buffer.is_wanted = u64::from(is_wanted::<F>(packet, side, filter, buffer));
    }
}

/// Reads the packet's tuple and looks up its flow. Returns `true` if the filter admits the packet.
#[inline(always)]
fn is_wanted<F: KernelFamily>(
    packet: &Packet,
    side: Side,
    filter: &TraceFilter,
    buffer: &mut TraceBuffer<F::Address>,
) -> bool {
    let TraceBuffer {
        record,
        client,
        port,
        ..
    } = buffer;
    record.was_found = 0;
    record.packets_before = 0;
    record.tuple = bytemuck::Zeroable::zeroed();
    let Some((network, ports)) = parse::network_and_ports::<F>(packet) else {
        return filter.admits_unknown();
    };
    record.tuple = network.tuple(side, ports);
    *client = network.addresses.source;
    *port = ports.destination;
    if let Some(flow) = flows::find::<F>(&record.tuple) {
        record.was_found = 1;
        record.packets_before = flow.entry().traffic.packets;
        if matches!(side, Side::Egress) {
            let back = flow.translation();
            *client = back.addresses.destination;
            *port = back.ports.source;
        }
    } else if matches!(side, Side::Egress) {
        return filter.admits_unknown();
    }
    filter.admits(client, *port, record.tuple.protocol)
}

/// Copies the beginning of the packet, and returns the length of the copy.
#[inline(always)]
fn copy(packet: &Packet, frame: &mut [u8; TRACE_FRAME_LEN]) -> Option<u32> {
    const LAST: u32 = TRACE_FRAME_LEN as u32 - 1;
    // Every frame has at least one byte. The compiler knows that the mask changes nothing, but the verifier does not.
    // Older verifiers also do not derive from a comparison that a length is not 0.
    let last = core::hint::black_box((packet.len() as u32 - 1).min(LAST));
    let len = (last & LAST) + 1;
    // SAFETY: the context is valid while the program runs, and `frame` has room for `len` bytes.
    let error = unsafe {
        bpf_skb_load_bytes(
            packet.skb().cast_const().cast(),
            0,
            frame.as_mut_ptr().cast(),
            len,
        )
    };
    (error == 0).then_some(len)
}

#[inline(always)]
fn emit_family<F: KernelFamily>(decision: u32) {
    let Some(buffer) = F::temp_trace() else {
        return;
    };
    if buffer.is_wanted == 0 {
        return;
    }
    buffer.is_wanted = 0;
    let record = &mut buffer.record;
    record.decision = decision;
    record.has_flow = 0;
    if let Some(flow) = flows::find::<F>(&record.tuple) {
        record.entry = *flow.entry();
        let side = Side::from_word(record.side);
        record.peer_tuple = record.entry.translation.peer(side, record.tuple.protocol);
        if let Some(peer) = flows::find::<F>(&record.peer_tuple) {
            record.peer = *peer.entry();
            record.has_flow = 1;
        }
    }
    if maps::TRACE
        .output_untyped::<TraceRecord<F::Address>>(&*record, 0)
        .is_err()
    {
        counters::count_lost(Subscriber::Trace);
    }
}
