//! Flow events as structured values for output, and the end of flows by order of the process.

use std::net::IpAddr;

use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use egress_common::{
    Address, Change, Either, EndOrder, Flow, FlowEvent, Ipv4Address, Ipv6Address, Tuple,
};

use super::{
    load::{Dataplane, LoadError, classifier},
    programs::END_FLOW,
    report::FlowReport,
};

/// A flow event. Times are `CLOCK_MONOTONIC` in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowChange {
    /// What happened.
    pub change: Change,
    /// When it happened.
    pub time_ns: u64,
    /// When the flow was opened.
    pub opened_ns: u64,
    /// When the last packet passed, up to a second late.
    pub last_seen_ns: u64,
    /// The flow at `time_ns`.
    pub flow: FlowReport,
}

impl FlowChange {
    /// Parses a flow event; `None` for one of an unknown layout.
    pub fn read(record: &[u8]) -> Option<Self> {
        match Either::<FlowEvent<Ipv4Address>, FlowEvent<Ipv6Address>>::read(record)? {
            Either::V4(event) => Self::of(&event),
            Either::V6(event) => Self::of(&event),
        }
    }

    fn of<A: Address + Into<IpAddr>>(event: &FlowEvent<A>) -> Option<Self> {
        let FlowEvent {
            time_ns,
            tuple,
            original,
            reply,
            ..
        } = event;
        Some(Self {
            change: event.change()?,
            time_ns: *time_ns,
            opened_ns: original.opened_ns,
            last_seen_ns: original.last_seen_ns.max(reply.last_seen_ns),
            flow: FlowReport::of(tuple, original, reply, *time_ns),
        })
    }
}

impl Dataplane {
    /// Ends a flow. `change` is the reason in its flow event. Returns whether the flow existed.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn end_flow<A: Address>(
        &mut self,
        tuple: &Tuple<A>,
        flow: &Flow<A>,
        change: Change,
    ) -> Result<bool, LoadError> {
        end_flow(classifier(&mut self.ebpf, END_FLOW)?, tuple, flow, change)
    }
}

/// [`Dataplane::end_flow`], with the program [`END_FLOW`].
pub(super) fn end_flow<A: Address>(
    program: &mut SchedClassifier,
    tuple: &Tuple<A>,
    flow: &Flow<A>,
    change: Change,
) -> Result<bool, LoadError> {
    let result = program
        .test_run(TestRunOptions {
            data_in: Some(&order(tuple, flow.opened_ns, change)),
            ..TestRunOptions::default()
        })
        .map_err(|source| LoadError::Program {
            name: END_FLOW,
            source,
        })?;
    Ok(result.return_value == 0)
}

/// The frame that tells [`END_FLOW`] to end a flow.
fn order<A: Address>(tuple: &Tuple<A>, opened_ns: u64, change: Change) -> Vec<u8> {
    let ether_type = if size_of::<A>() == size_of::<Ipv4Address>() {
        [0x08, 0x00]
    } else {
        [0x86, 0xdd]
    };
    let mut frame = vec![0; 12];
    frame.extend(ether_type);
    frame.extend(bytemuck::bytes_of(&EndOrder::new(
        *tuple, opened_ns, change,
    )));
    frame
}
