//! Ending idle flows from userspace.

use egress_common::{Address, Flow, Side, Timeouts, Tuple};

use super::maps::{FamilyMaps, MapsError};

/// What a sweep did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Flows that live on.
    pub live: u64,
    /// Flows that were ended.
    pub ended: u64,
}

/// An entry without its other half is one being opened, or was left by a failed opening.
const OPENING_NS: u64 = 5_000_000_000;

/// Ends the flows of a family that have been idle for longer than their state allows.
///
/// # Errors
///
/// If the kernel refuses.
pub fn sweep<A: Address>(
    maps: &mut FamilyMaps<A>,
    timeouts: &Timeouts,
    now_ns: u64,
) -> Result<Swept, MapsError> {
    let mut swept = Swept::default();
    let mut idle: Vec<Tuple<A>> = Vec::new();
    for entry in &maps.flows {
        // A key that vanishes while the table is read is one less to care for.
        let Ok((tuple, flow)) = entry else { continue };
        match is_idle(maps, &tuple, &flow, timeouts, now_ns) {
            Some(true) => idle.push(tuple),
            Some(false) => swept.live += 1,
            None => {}
        }
    }
    for tuple in idle {
        // Looked at once more just before: a packet may have passed since.
        let Ok(flow) = maps.flows.get(&tuple, 0) else {
            continue;
        };
        if is_idle(maps, &tuple, &flow, timeouts, now_ns) != Some(true) {
            swept.live += 1;
            continue;
        }
        let side = tuple.side().unwrap_or(Side::Cluster);
        // Either may be gone already, when the kernel half has reopened the flow meanwhile.
        let _ = maps.flows.remove(&tuple);
        let _ = maps
            .flows
            .remove(&flow.translation.peer(side, tuple.protocol));
        swept.ended += 1;
    }
    Ok(swept)
}

/// Whether the flow of this entry is to end; `None` for the entry of a reply, whose flow is judged by the other entry.
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
        (_, Err(_)) => (now_ns.saturating_sub(flow.opened_ns) > OPENING_NS).then_some(true),
    }
}
