//! Scratch: a CPU's working memory for what is too large for the stack of 512 bytes.
//!
//! The types are the values of the per-CPU maps named `TEMP_…`. What they hold means something within one run of a
//! program only. Each says which step writes it.

use egress_common::{
    Flow, FlowEvent, NextHopRef, Port, Rule, SweepItem, TraceRecord, Translation, Tuple,
};

/// A flow that is being opened: the element of `TEMP_FLOW_V4` and `TEMP_FLOW_V6`.
///
/// The steps run one after the other, each in global functions, and each has a field of its own.
#[repr(C)]
pub struct TempFlow<A> {
    /// Written by `open::plan`; read by `ports` and `open::enter`.
    pub plan: Plan<A>,
    /// Written by `ports`; read by `open::enter`.
    pub mapping: Mapping<A>,
    /// The entry that is inserted next. Written by `ports` as the reply entry; `open::enter` makes the original one of
    /// it.
    pub entry: Flow<A>,
    /// The flow's item in the sweep queue. Written and read by `open::enter`.
    pub item: SweepItem<A>,
    /// The key of a lookup. Written and read within `connection::examine` and `fragments::follow`.
    pub lookup: Tuple<A>,
}

/// What the rules make of a client's packet.
#[repr(C)]
pub struct Plan<A> {
    /// The tuple of the packet.
    pub tuple: Tuple<A>,
    /// The rule that opens the flow.
    pub rule: Rule<A>,
    /// The packet's translation, with the preferred NAT port for a source port.
    pub translation: Translation<A>,
    /// The next hop of the server's packets.
    pub towards_client: NextHopRef,
    /// The next hop of the client's packets.
    pub towards_server: NextHopRef,
}

/// The NAT port of a flow, and what follows from it.
#[repr(C)]
pub struct Mapping<A> {
    /// The reply tuple: the key of the reply entry.
    pub reply_tuple: Tuple<A>,
    /// The plan's translation with the port that was taken.
    pub translation: Translation<A>,
    /// The reply tuple without the NAT port: the key of `EXHAUSTED_V4` and `EXHAUSTED_V6`. Nobody else reads it.
    pub server: Tuple<A>,
}

/// A flow event on its way to the subscribers: an element of `TEMP_EVENT_V4` and `TEMP_EVENT_V6`. Written and read by
/// `events` only.
#[repr(C)]
pub struct EventBuffer<A> {
    pub event: FlowEvent<A>,
    /// The reply tuple of the event's flow.
    pub reply: Tuple<A>,
}

/// Which element of `TEMP_EVENT_V4` and `TEMP_EVENT_V6` a program uses.
///
/// The program that userspace runs may be interrupted by those that packets run, so it has one of its own.
#[derive(Clone, Copy)]
pub enum EventSlot {
    /// Of programs that packets run, and of the timer. These do not interrupt each other.
    Packets = 0,
    /// Of the program that userspace runs.
    Userspace = 1,
}

word_enum!(EventSlot: Packets or Userspace);

/// A traced packet between its arrival and the decision: the element of `TEMP_TRACE_V4` and `TEMP_TRACE_V6`. Written
/// and read by `trace` only.
#[repr(C)]
pub struct TraceBuffer<A> {
    pub record: TraceRecord<A>,
    /// The client whose flow it may be of.
    pub client: A,
    /// The port that the client connects to.
    pub port: Port,
    pub padding: u16,
    /// Whether the filter admits the packet that arrived last on this CPU.
    pub is_wanted: u64,
}
