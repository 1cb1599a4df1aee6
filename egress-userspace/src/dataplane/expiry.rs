//! Ends idle flows from userspace, on kernels where the kernel half cannot.

use aya::programs::SchedClassifier;
use egress_common::{Address, Change, Flow, Side, Timeouts, Tuple};

use super::{
    events::end_flow,
    load::{Dataplane, LoadError, classifier},
    maps::FamilyMaps,
    programs::END_FLOW,
};

/// The result of a sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// The number of flows that are left.
    pub live: u64,
    /// The number of flows that the sweep ended.
    pub ended: u64,
}

/// An entry without the other one belongs to a flow that is being opened or, after this time, to a failed opening.
const OPENING_TIMEOUT_NS: u64 = 5_000_000_000;

impl Dataplane {
    /// Ends the flows that have been idle for longer than their state allows.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub fn sweep(&mut self, timeouts: &Timeouts, now_ns: u64) -> Result<Swept, LoadError> {
        let program = classifier(&mut self.ebpf, END_FLOW)?;
        let v4 = sweep(&mut self.maps.v4, program, timeouts, now_ns)?;
        let v6 = sweep(&mut self.maps.v6, program, timeouts, now_ns)?;
        Ok(Swept {
            live: v4.live + v6.live,
            ended: v4.ended + v6.ended,
        })
    }
}

/// [`Dataplane::sweep`] for a family.
fn sweep<A: Address>(
    maps: &mut FamilyMaps<A>,
    program: &mut SchedClassifier,
    timeouts: &Timeouts,
    now_ns: u64,
) -> Result<Swept, LoadError> {
    let mut swept = Swept::default();
    let mut idle: Vec<Tuple<A>> = Vec::new();
    for entry in &maps.flows {
        // An entry that is deleted during the walk needs no further action.
        let Ok((tuple, flow)) = entry else { continue };
        match is_idle(maps, &tuple, &flow, timeouts, now_ns) {
            Some(true) => idle.push(tuple),
            Some(false) => swept.live += 1,
            None => {}
        }
    }
    for tuple in idle {
        // Checked again, as a packet may have passed since.
        let Ok(flow) = maps.flows.get(&tuple, 0) else {
            continue;
        };
        if is_idle(maps, &tuple, &flow, timeouts, now_ns) != Some(true) {
            swept.live += 1;
            continue;
        }
        if tuple.side() == Some(Side::Cluster) {
            // The program does not end a flow that was reopened in the meantime.
            swept.ended += u64::from(end_flow(program, &tuple, &flow, Change::Idle)?);
        } else {
            // A reply entry without its original entry.
            let _ = maps.flows.remove(&tuple);
            swept.ended += 1;
        }
    }
    Ok(swept)
}

/// Whether the flow of this entry is idle; `None` for a reply entry, as the original entry decides about the flow.
fn is_idle<A: Address>(
    maps: &FamilyMaps<A>,
    tuple: &Tuple<A>,
    flow: &Flow<A>,
    timeouts: &Timeouts,
    now_ns: u64,
) -> Option<bool> {
    let side = tuple.side()?;
    let peer = maps
        .flows
        .get(&flow.translation.peer(side, tuple.protocol), 0);
    match (side, peer) {
        (Side::Cluster, Ok(reply)) => Some(Flow::is_expired(
            tuple.protocol,
            flow,
            &reply,
            timeouts,
            now_ns,
        )),
        (Side::Egress, Ok(_)) => None,
        (_, Err(_)) => (now_ns.saturating_sub(flow.opened_ns) > OPENING_TIMEOUT_NS).then_some(true),
    }
}
