//! Scratch: a CPU's working memory for values that are too large for the stack of 512 bytes.
//!
//! These types are the values of the per-CPU maps named `TEMP_…`. Their contents are valid only during one run of a
//! program. Each states which step writes it.

use egress_common::{
    Flow, FlowEvent, NextHopRef, Port, Rule, SweepItem, TraceRecord, Translation, Tuple,
};

/// A flow that is being opened: the element of `TEMP_FLOW_V4` and `TEMP_FLOW_V6`.
///
/// The steps run one after the other, in separate global functions. Each has its own field.
#[repr(C)]
pub struct TempFlow<A> {
    /// Written by `open::plan`; read by `ports` and `open::enter`.
    pub plan: Plan<A>,
    /// The packet's translation. Written by `open::plan` with the preferred NAT port; `ports` replaces that with the
    /// allocated one; read by `open::enter`. So a second attempt, in a full table, prefers the port of the first.
    pub translation: Translation<A>,
    /// Written by `ports`; read by `open::enter`.
    pub mapping: Mapping<A>,
    /// The next entry to insert. Written by `ports` as the reply entry; `open::enter` then turns it into the original
    /// one.
    pub entry: Flow<A>,
    /// The flow's item in the sweep queue. Written and read by `open::enter`.
    pub item: SweepItem<A>,
    /// The key of a lookup. Written and read in `connection::examine` and `fragments::follow`.
    pub lookup: Tuple<A>,
}

/// A packet's rule, and what follows from it for its flow.
#[repr(C)]
pub struct Plan<A> {
    /// The tuple of the packet.
    pub tuple: Tuple<A>,
    /// The rule that opens the flow.
    pub rule: Rule<A>,
    /// The next hop of the server's packets.
    pub towards_client: NextHopRef,
    /// The next hop of the client's packets.
    pub towards_server: NextHopRef,
}

/// What follows from a flow's NAT port.
#[repr(C)]
pub struct Mapping<A> {
    /// The reply tuple: the key of the reply entry.
    pub reply_tuple: Tuple<A>,
    /// The reply tuple without the NAT port: the key of `EXHAUSTED_V4` and `EXHAUSTED_V6`. Only `ports` uses it.
    pub server: Tuple<A>,
}

/// A flow event for the subscribers: an element of `TEMP_EVENT_V4` and `TEMP_EVENT_V6`. Only `events` writes and reads
/// it.
#[repr(C)]
pub struct EventBuffer<A> {
    pub event: FlowEvent<A>,
    /// The reply tuple of the event's flow.
    pub reply: Tuple<A>,
}

/// The element of `TEMP_EVENT_V4` and `TEMP_EVENT_V6` that a program uses.
///
/// Packets may interrupt the program that userspace runs, so that program has a slot of its own.
#[derive(Clone, Copy)]
pub enum EventSlot {
    /// For programs that packets run, and for the timer. They do not interrupt each other.
    Packets = 0,
    /// For the program that userspace runs.
    Userspace = 1,
}

word_enum!(EventSlot: Packets or Userspace);

/// A traced packet between its arrival and the decision: the element of `TEMP_TRACE_V4` and `TEMP_TRACE_V6`. Only
/// `trace` writes and reads it.
#[repr(C)]
pub struct TraceBuffer<A> {
    pub record: TraceRecord<A>,
    /// The client of the flow that the packet may belong to.
    pub client: A,
    /// The port that the client connects to.
    pub port: Port,
    pub padding: u16,
    /// 1 if the filter admits the packet that arrived last on this CPU.
    pub is_wanted: u64,
}
