//! Finding a NAT port: the insert into the flow table decides whether one is free.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_prandom_u32};
use egress_common::{
    Candidates, Flow, NatRange, Outcome, PORT_ATTEMPTS, Pair, Port, Ports, Side, Translation,
    Tuple, checksum,
};

use crate::family::Pipeline;

/// `-EEXIST`: the key is in the map already.
const EEXIST: i32 = -17;

/// Takes a port towards a server by inserting the reply entry of a flow, and gives the translation of its other entry.
///
/// `addresses` and `server_port` are those of the translated packet; `entry` is a place to put the entry together.
#[inline(always)]
pub fn take<F: Pipeline>(
    tuple: &Tuple<F::Address>,
    addresses: Pair<F::Address>,
    server_port: Port,
    range: NatRange,
    rule: u32,
    now_ns: u64,
    entry: &mut Flow<F::Address>,
) -> Result<Translation<F::Address>, Outcome> {
    // SAFETY: the helper takes nothing and cannot fail.
    let random = unsafe { bpf_get_prandom_u32() };
    let candidates = Candidates::new(range, tuple.ports.source, random);
    let ports = Ports {
        source: Port::new(0),
        destination: server_port,
    };
    let mut translation = Translation::new(tuple, addresses, ports);
    let mut reply = translation.peer(Side::Cluster, tuple.protocol);
    let back = Translation::new(&reply, tuple.addresses.swapped(), tuple.ports.swapped());
    *entry = Flow::new(back, rule, now_ns);
    for attempt in 0..PORT_ATTEMPTS {
        let port = candidates.nth(attempt).ok_or(Outcome::NoFreePort)?;
        reply.ports.destination = port;
        entry.translation.port_delta = checksum::delta(reply.ports.sum(), tuple.ports.sum());
        match F::flows().insert(&reply, &*entry, u64::from(BPF_NOEXIST)) {
            Ok(()) => {
                translation.ports.source = port;
                translation.port_delta =
                    checksum::delta(tuple.ports.sum(), translation.ports.sum());
                return Ok(translation);
            }
            Err(EEXIST) => {}
            Err(_) => return Err(Outcome::FlowTableFull),
        }
    }
    Err(Outcome::NoFreePort)
}
