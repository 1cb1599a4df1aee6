//! Finding a NAT port: the insert into the flow table decides whether one is free.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_prandom_u32};
use egress_common::{
    Candidates, Flow, NatRange, Outcome, PORT_ATTEMPTS, Pair, Port, Ports, Side, Translation, Tuple,
};

use crate::family::Pipeline;

/// `-EEXIST`: the key is in the map already.
const EEXIST: i32 = -17;

/// Takes a port towards a server by inserting the reply entry of a flow, and gives the translation of its other entry.
///
/// `addresses` and `server_port` are those of the translated packet.
#[inline(always)]
pub fn take<F: Pipeline>(
    tuple: &Tuple<F::Address>,
    addresses: Pair<F::Address>,
    server_port: Port,
    range: NatRange,
    rule: u32,
    now_ns: u64,
) -> Result<Translation<F::Address>, Outcome> {
    // SAFETY: the helper takes nothing and cannot fail.
    let random = unsafe { bpf_get_prandom_u32() };
    let candidates = Candidates::new(range, tuple.ports.source, random);
    for attempt in 0..PORT_ATTEMPTS {
        let source = candidates.nth(attempt).ok_or(Outcome::NoFreePort)?;
        let ports = Ports {
            source,
            destination: server_port,
        };
        let translation = Translation::new(tuple, addresses, ports);
        let reply = translation.peer(Side::Cluster, tuple.protocol);
        let back = Translation::new(&reply, tuple.addresses.swapped(), tuple.ports.swapped());
        match F::flows().insert(reply, Flow::new(back, rule, now_ns), u64::from(BPF_NOEXIST)) {
            Ok(()) => return Ok(translation),
            Err(EEXIST) => {}
            Err(_) => return Err(Outcome::FlowTableFull),
        }
    }
    Err(Outcome::NoFreePort)
}
