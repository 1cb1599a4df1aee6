//! Tracing: what is decided for packets that somebody wants to see.
//!
//! While nobody traces, a packet pays two loads and two branches that are never taken.

use aya_ebpf::helpers::bpf_skb_load_bytes;
use egress_common::{
    Bytes as _, Decision, Outcome, Port, Side, Subscriber, TRACE_FRAME_LEN, TraceFilter,
    TraceRecord, Tuple,
};

use crate::{
    clock, counters, events, family::Pipeline, flows, forward::Forward, maps, packet::Packet, rare,
};

/// A packet that is traced, between its arrival and the decision.
#[repr(C)]
pub struct Traced<A> {
    record: TraceRecord<A>,
    /// The client whose flow it may be of.
    client: A,
    /// The port that the client connects to.
    port: Port,
    padding: u16,
    /// Whether the packet that arrived last on this CPU is wanted.
    is_wanted: u64,
}

#[inline(always)]
fn is_on() -> bool {
    events::until(Subscriber::Trace) != 0
}

/// Notes a packet that arrives on `side`, if somebody wants to see it.
#[inline(always)]
pub fn arrived(packet: &Packet, side: Side) {
    if is_on() {
        rare::trace_arrival(packet, side);
    }
}

/// Tells what was decided for the packet, if somebody wants to see it.
#[inline(always)]
pub fn decided(packet: &Packet, forward: &Result<Forward, Outcome>) {
    if is_on() {
        let decision = match forward {
            Ok(forward) => forward.decision(),
            Err(outcome) => Decision::Refused(*outcome),
        };
        rare::trace_decision(packet, decision);
    }
}

/// [`arrived`], once somebody wants to see some packets.
#[inline(always)]
pub fn note<F: Pipeline>(packet: &Packet, side: Side) {
    let now_ns = clock::now_ns();
    let (Some(traced), Some(filter)) = (F::traced(), maps::TRACE_FILTER.get(0)) else {
        return;
    };
    traced.is_wanted = 0;
    if !events::listens(Subscriber::Trace, now_ns) {
        return;
    }
    let record = &mut traced.record;
    record.time_ns = now_ns;
    record.side = side as u32;
    record.len = packet.len() as u32;
    if let Some(len) = copy(packet, &mut record.frame) {
        record.frame_len = len;
        traced.is_wanted = u64::from(is_wanted::<F>(packet, side, filter, traced));
    }
}

/// Reads the packet's tuple, and looks for its flow. Whether the filter admits it.
#[inline(always)]
fn is_wanted<F: Pipeline>(
    packet: &Packet,
    side: Side,
    filter: &TraceFilter,
    traced: &mut Traced<F::Address>,
) -> bool {
    let Traced {
        record,
        client,
        port,
        ..
    } = traced;
    record.was_found = 0;
    record.packets_before = 0;
    record.tuple = bytemuck::Zeroable::zeroed();
    let Some((network, ports)) = packet.name::<F>() else {
        return filter.admits_unknown();
    };
    record.tuple = Tuple::new(side, network.protocol, network.addresses, ports);
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

/// Copies the beginning of the packet; gives its length.
#[inline(always)]
fn copy(packet: &Packet, frame: &mut [u8; TRACE_FRAME_LEN]) -> Option<u32> {
    const LAST: u32 = TRACE_FRAME_LEN as u32 - 1;
    // Every frame has a first byte. The compiler knows by now that the mask changes nothing, the verifier does not; nor do
    // older ones see by a comparison that a length is not 0.
    let last = core::hint::black_box((packet.len() as u32 - 1).min(LAST));
    let len = (last & LAST) + 1;
    // SAFETY: the context is valid while the program runs, and the frame has room for `len` bytes.
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

/// [`decided`], once somebody wants to see some packets; the decision by its number.
#[inline(always)]
pub fn tell<F: Pipeline>(decision: u32) {
    let Some(traced) = F::traced() else {
        return;
    };
    if traced.is_wanted == 0 {
        return;
    }
    traced.is_wanted = 0;
    let record = &mut traced.record;
    record.decision = decision;
    record.has_flow = 0;
    if let Some(flow) = flows::find::<F>(&record.tuple) {
        record.entry = *flow.entry();
        let side = if record.side == Side::Cluster as u32 {
            Side::Cluster
        } else {
            Side::Egress
        };
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
