//! Finding a NAT port: the insert into the flow table decides whether one is free.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_prandom_u32};
use egress_common::{Candidates, Outcome, Port, Side, Translation, checksum};

use crate::{clock, family::Pipeline, maps, packet::Packet, scratch::Scratch};

/// How many attempts are made in a call of their own.
const STRETCH: u32 = 128;

/// After a search in vain, which takes milliseconds, new flows towards the server are refused without one for so long.
const RETRY_NS: u64 = 1_000_000_000;

/// `-EEXIST`: the key is in the map already.
const EEXIST: i32 = -17;

/// Takes a port towards the server of the translation in [`Scratch`], by inserting the reply entry of the flow, and
/// completes the translation by it.
#[inline(always)]
pub fn take<F: Pipeline>(packet: &Packet) -> Result<(), Outcome> {
    let scratch = F::scratch().ok_or(Outcome::NotConfigured)?;
    let config = maps::CONFIG.get(0).ok_or(Outcome::NotConfigured)?;
    let now_ns = clock::now_ns();
    scratch.reply = scratch
        .translation
        .peer(Side::Cluster, scratch.tuple.protocol);
    scratch.entry.translation = Translation::new(
        &scratch.reply,
        scratch.tuple.addresses.swapped(),
        scratch.tuple.ports.swapped(),
    );
    scratch.entry.open(scratch.rule.id, now_ns);
    scratch.entry.next_hop = scratch.towards_client;
    let wanted = scratch.translation.ports.source;
    if config.nat_range.contains(wanted) && take_port::<F>(scratch, wanted)? {
        return Ok(());
    }
    // What all flows towards the server have in common.
    scratch.server = scratch.reply;
    scratch.server.ports.destination = Port::new(0);
    if let Some(searched_ns) = F::exhausted().get_ptr(&scratch.server) {
        // SAFETY: the pointer comes from a lookup. Read while it is replaced, it is one of two times.
        if now_ns.wrapping_sub(unsafe { *searched_ns }) < RETRY_NS {
            return Err(Outcome::NoFreePort);
        }
    }
    // SAFETY: the helper takes nothing and cannot fail.
    let random = unsafe { bpf_get_prandom_u32() };
    for stretch in 0..Candidates::ATTEMPTS / STRETCH {
        // Calls, so that the verifier does not follow each way through each turn of the loop.
        if F::search_stretch(packet, random, stretch)? {
            return Ok(());
        }
    }
    // Without room for it, the next flow searches as well.
    let _ = F::exhausted().insert(&scratch.server, &now_ns, 0);
    Err(Outcome::NoFreePort)
}

/// Tries a stretch of the candidates; `random` is the same for all. Whether one was free.
#[inline(always)]
pub fn search_stretch<F: Pipeline>(
    packet: &Packet,
    random: u32,
    stretch: u32,
) -> Result<bool, Outcome> {
    let config = maps::CONFIG.get(0).ok_or(Outcome::NotConfigured)?;
    let candidates = Candidates::new(config.nat_range, random);
    for attempt in 0..STRETCH {
        if let Some(index) = candidates.nth(stretch * STRETCH + attempt)
            && F::take_nth(packet, index)?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Takes the port at this index of the NAT range for the flow in [`Scratch`]. Whether it was free.
#[inline(always)]
pub fn take_nth<F: Pipeline>(index: u32) -> Result<bool, Outcome> {
    let scratch = F::scratch().ok_or(Outcome::NotConfigured)?;
    let config = maps::CONFIG.get(0).ok_or(Outcome::NotConfigured)?;
    take_port::<F>(scratch, config.nat_range.nth(index))
}

/// Takes this port for the flow in `scratch`. Whether it was free.
#[inline(always)]
fn take_port<F: Pipeline>(scratch: &mut Scratch<F::Address>, port: Port) -> Result<bool, Outcome> {
    let Scratch {
        tuple,
        reply,
        translation,
        entry,
        ..
    } = scratch;
    let client = tuple.ports.sum();
    reply.ports.destination = port;
    // A lookup costs less than an insert in vain. Only the insert decides.
    if F::flows().get_ptr(&*reply).is_some() {
        return Ok(false);
    }
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
