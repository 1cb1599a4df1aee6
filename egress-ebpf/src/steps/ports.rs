//! Allocating a NAT port. A port is free if the reply entry can be inserted into the flow table.

use aya_ebpf::{bindings::BPF_NOEXIST, helpers::bpf_get_prandom_u32};
use egress_common::{Candidates, Outcome, Port, Side, Translation, checksum};

use crate::primitives::{clock, family::KernelFamily, maps, scratch::TempFlow};

/// The number of candidates that one call of a global function tries.
const BATCH: u32 = 128;

/// How long new flows to a server are refused without a search after a search has failed. A search takes milliseconds.
const RETRY_NS: u64 = 1_000_000_000;

/// `-EEXIST`: the key is in the map already.
const EEXIST: i32 = -17;

global_fn! {
    /// Allocates a port for the plan in [`TempFlow`], by inserting the reply entry. Writes [`Mapping`].
    ///
    /// [`Mapping`]: crate::primitives::scratch::Mapping
    pub fn allocate<F>() -> Result<(), Outcome> = search::<F>;
    V4 => allocate_port_v4, V6 => allocate_port_v6
}

// These are calls, so that the verifier does not follow all paths in each iteration of a loop.

global_fn! {
    /// Tries a batch of candidates until one is free. `random` determines their order.
    fn try_batch<F>(random: u32, batch: u32) -> Attempt = take_of_batch::<F>;
    V4 => try_port_batch_v4, V6 => try_port_batch_v6
}

global_fn! {
    /// Tries to take the port at this index of the NAT range.
    fn try_index<F>(index: u32) -> Attempt = take_index::<F>;
    V4 => try_port_v4, V6 => try_port_v6
}

/// The result of an attempt to take a port. It is not a [`Result`], to keep the loop over the candidates short.
#[derive(Clone, Copy)]
enum Attempt {
    /// Another flow has the port.
    Taken = 0,
    /// The port was free, and now belongs to the flow.
    Succeeded = 1,
    /// The flow table is full.
    TableFull = 2,
}

word_enum!(Attempt: Taken, Succeeded or TableFull);

/// Tries the preferred port, then all others.
#[inline(always)]
fn search<F: KernelFamily>() -> Result<(), Outcome> {
    let temp = F::temp_flow()?;
    let config = maps::config()?;
    let now_ns = clock::now_ns();
    let TempFlow {
        plan,
        translation,
        mapping,
        entry,
        ..
    } = temp;
    mapping.reply_tuple = translation.peer(Side::Cluster, plan.tuple.protocol);
    entry.translation = Translation::new(
        &mapping.reply_tuple,
        plan.tuple.addresses.swapped(),
        plan.tuple.ports.swapped(),
    );
    entry.open(plan.rule.id, now_ns);
    entry.next_hop = plan.towards_client;
    let preferred = translation.ports.source;
    if config.nat_range.contains(preferred) {
        match take::<F>(temp, preferred) {
            Attempt::Taken => {}
            Attempt::Succeeded => return Ok(()),
            Attempt::TableFull => return Err(Outcome::FlowTableFull),
        }
    }
    let mapping = &mut temp.mapping;
    mapping.server = mapping.reply_tuple;
    mapping.server.ports.destination = Port::new(0);
    if let Some(failed_ns) = F::exhausted().get_ptr(&mapping.server) {
        // SAFETY: the pointer comes from a lookup. If the element is replaced during the read, this is one of two
        // times.
        if now_ns.wrapping_sub(unsafe { *failed_ns }) < RETRY_NS {
            return Err(Outcome::NoFreePort);
        }
    }
    // SAFETY: the helper takes no arguments and cannot fail.
    let random = unsafe { bpf_get_prandom_u32() };
    for batch in 0..Candidates::ATTEMPTS / BATCH {
        match try_batch::<F>(random, batch) {
            Attempt::Taken => {}
            Attempt::Succeeded => return Ok(()),
            Attempt::TableFull => return Err(Outcome::FlowTableFull),
        }
    }
    // If this insertion fails, the next flow searches again.
    let _ = F::exhausted().insert(&mapping.server, &now_ns, 0);
    Err(Outcome::NoFreePort)
}

#[inline(always)]
fn take_of_batch<F: KernelFamily>(random: u32, batch: u32) -> Attempt {
    let Ok(config) = maps::config() else {
        return Attempt::TableFull;
    };
    let candidates = Candidates::new(config.nat_range, random);
    for attempt in 0..BATCH {
        if let Some(index) = candidates.nth(batch * BATCH + attempt) {
            match try_index::<F>(index) {
                Attempt::Taken => {}
                ended => return ended,
            }
        }
    }
    Attempt::Taken
}

#[inline(always)]
fn take_index<F: KernelFamily>(index: u32) -> Attempt {
    let (Ok(temp), Ok(config)) = (F::temp_flow(), maps::config()) else {
        return Attempt::TableFull;
    };
    take::<F>(temp, config.nat_range.nth(index))
}

/// Takes a port, and writes it to the translation.
#[inline(always)]
fn take<F: KernelFamily>(temp: &mut TempFlow<F::Address>, port: Port) -> Attempt {
    let TempFlow {
        plan,
        translation,
        mapping,
        entry,
        ..
    } = temp;
    let client = plan.tuple.ports.sum();
    mapping.reply_tuple.ports.destination = port;
    // A lookup costs less than an insertion that fails. Only the insertion decides.
    if F::flows().get_ptr(&mapping.reply_tuple).is_some() {
        return Attempt::Taken;
    }
    entry.translation.port_delta = checksum::delta(mapping.reply_tuple.ports.sum(), client);
    match F::flows().insert(&mapping.reply_tuple, &*entry, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            translation.ports.source = port;
            translation.port_delta = checksum::delta(client, translation.ports.sum());
            Attempt::Succeeded
        }
        Err(EEXIST) => Attempt::Taken,
        Err(_) => Attempt::TableFull,
    }
}
