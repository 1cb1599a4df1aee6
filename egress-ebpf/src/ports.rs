//! Finding a NAT port: the insert into the flow table decides whether one is free.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_prandom_u32};
use egress_common::{
    Candidates, Config, Outcome, PORT_ATTEMPTS, Port, Side, Translation, checksum,
};

use crate::{family::Pipeline, maps, packet::Packet, scratch::Scratch};

/// `-EEXIST`: the key is in the map already.
const EEXIST: i32 = -17;

/// Takes a port towards the server of the translation in `scratch`, by inserting the reply entry of the flow, and
/// completes the translation by it.
#[inline(always)]
pub fn take<F: Pipeline>(
    packet: &Packet,
    scratch: &mut Scratch<F::Address>,
    config: &Config,
    now_ns: u64,
) -> Result<(), Outcome> {
    scratch.reply = scratch
        .translation
        .peer(Side::Cluster, scratch.tuple.protocol);
    scratch.entry.translation = Translation::new(
        &scratch.reply,
        scratch.tuple.addresses.swapped(),
        scratch.tuple.ports.swapped(),
    );
    scratch.entry.open(scratch.rule.id, now_ns);
    let own = scratch.tuple.ports.source;
    if config.nat_range.contains(own) && take_one::<F>(scratch, own)? {
        return Ok(());
    }
    // SAFETY: the helper takes nothing and cannot fail.
    let random = unsafe { bpf_get_prandom_u32() };
    for attempt in 0..PORT_ATTEMPTS {
        // A call, so that the verifier does not follow each of its ways through each turn of the loop.
        if F::take_candidate(packet, random, attempt)? {
            return Ok(());
        }
    }
    Err(Outcome::NoFreePort)
}

/// Tries the candidate of this attempt; `random` is the same in each. Whether it was free.
#[inline(always)]
pub fn take_candidate<F: Pipeline>(random: u32, attempt: u32) -> Result<bool, Outcome> {
    let scratch = F::scratch().ok_or(Outcome::NotConfigured)?;
    let config = maps::CONFIG.get(0).ok_or(Outcome::NotConfigured)?;
    let candidates = Candidates::new(config.nat_range, random);
    if attempt >= candidates.len() {
        return Err(Outcome::NoFreePort);
    }
    take_one::<F>(scratch, candidates.nth(attempt))
}

#[inline(always)]
fn take_one<F: Pipeline>(scratch: &mut Scratch<F::Address>, port: Port) -> Result<bool, Outcome> {
    let Scratch {
        tuple,
        reply,
        translation,
        entry,
        ..
    } = scratch;
    let client = tuple.ports.sum();
    reply.ports.destination = port;
    entry.translation.port_delta = checksum::delta(reply.ports.sum(), client);
    match F::flows().insert(&*reply, &*entry, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            translation.ports.source = port;
            translation.port_delta = checksum::delta(client, translation.ports.sum());
            Ok(true)
        }
        Err(EEXIST) => Ok(false),
        Err(_) => Err(Outcome::FlowTableFull),
    }
}
