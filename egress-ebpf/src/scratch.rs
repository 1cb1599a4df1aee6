//! What is too large for the stack of 512 bytes, in a per-CPU map.

use egress_common::{Flow, NextHopRef, Rule, SweepItem, Translation, Tuple};

/// Where a flow is put together. Each CPU has one of its own, and its program is not interrupted by another of ours.
#[repr(C)]
pub struct Scratch<A> {
    /// The tuple of the packet that opens the flow.
    pub tuple: Tuple<A>,
    /// The rule that it is opened by.
    pub rule: Rule<A>,
    /// The tuple of its answers.
    pub reply: Tuple<A>,
    /// What the answers of all flows towards the same server have in common: `reply` without the NAT port.
    pub server: Tuple<A>,
    /// What becomes of the packet.
    pub translation: Translation<A>,
    /// Whom answers are handed to.
    pub towards_client: NextHopRef,
    /// Whom the client's packets are handed to.
    pub towards_server: NextHopRef,
    /// The entry that is inserted next.
    pub entry: Flow<A>,
    /// The flow's place in the queue of the sweep.
    pub item: SweepItem<A>,
}
