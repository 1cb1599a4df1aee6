//! Fragments. The first one identifies the flow for the later ones, and re-injects those that arrived before it.

use core::arch::asm;

use aya_ebpf::{
    bindings::{BPF_F_INGRESS, BPF_F_RECOMPUTE_CSUM, BPF_NOEXIST},
    helpers::{bpf_clone_redirect, bpf_skb_change_tail, bpf_skb_load_bytes, bpf_skb_store_bytes},
};
use egress_common::{
    Bytes as _, ETHERNET_HEADER_LEN, FirstFragment, FragmentKey, HELD_LEN, HeldFragment, Outcome,
    PacketKind, Side, protocol, tcp,
};

use super::{addresses, flows, forward, parse};
use crate::primitives::{clock, family::KernelFamily, maps, packet::Packet};

/// Remembers a first fragment that arrived on `side`, and re-injects the fragments that were held for it.
#[inline(always)]
pub fn remember<F: KernelFamily>(packet: &Packet, side: Side) -> Result<(), Outcome> {
    remember_ports::<F>(packet, side)?;
    reinject_held::<F>(packet, side)
}

/// Translates a later fragment that arrived on `side`, or holds it until its first one arrives. Returns `false` if it
/// belongs to no flow, or cannot be held.
///
/// # Errors
///
/// [`Outcome::FragmentHeld`] if it is held, or why it is not forwarded.
#[inline(always)]
pub fn translate<F: KernelFamily>(packet: &Packet, side: Side) -> Result<bool, Outcome> {
    match follow_first::<F>(packet, side)? {
        Followed::Translated => Ok(true),
        Followed::NoFlow => Ok(false),
        Followed::NoFirst if hold_fragment::<F>(packet, side)? => Err(Outcome::FragmentHeld),
        Followed::NoFirst => Ok(false),
    }
}

global_fn! {
    /// [`insert_ports`].
    fn remember_ports<F>(packet: &Packet, side: Side) -> Result<(), Outcome> = insert_ports::<F>;
    V4 => remember_fragment_v4, V6 => remember_fragment_v6
}

global_fn! {
    /// [`reinject`].
    fn reinject_held<F>(packet: &Packet, side: Side) -> Result<(), Outcome> = reinject::<F>;
    V4 => reinject_fragments_v4, V6 => reinject_fragments_v6
}

global_fn! {
    /// [`follow`].
    fn follow_first<F>(packet: &Packet, side: Side) -> Result<Followed, Outcome> = follow::<F>;
    V4 => translate_fragment_v4, V6 => translate_fragment_v6
}

global_fn! {
    /// [`hold`].
    fn hold_fragment<F>(packet: &Packet, side: Side) -> Result<bool, Outcome> = hold::<F>;
    V4 => hold_fragment_v4, V6 => hold_fragment_v6
}

/// The result of looking for a later fragment's flow.
#[derive(Clone, Copy)]
enum Followed {
    /// It is translated.
    Translated = 0,
    /// Its first fragment belongs to no flow.
    NoFlow = 1,
    /// Its first fragment has not arrived.
    NoFirst = 2,
}

word_enum!(Followed: Translated, NoFlow or NoFirst);

/// The elements of `TEMP_FRAMES`: for a frame that is about to be held, and for a first fragment.
const TO_HOLD: u32 = 0;
const FIRST: u32 = 1;

/// The key of the fragment that has arrived on `side`.
#[inline(always)]
fn key<F: KernelFamily>(packet: &Packet, side: Side) -> Result<FragmentKey<F::Address>, Outcome> {
    let network = parse::headers::<F>(packet)?.network;
    let id = F::fragment(packet)?.id;
    Ok(FragmentKey::new(
        side,
        network.protocol,
        network.addresses,
        id,
    ))
}

/// Remembers the ports of a first fragment that arrived on `side`.
#[inline(always)]
fn insert_ports<F: KernelFamily>(packet: &Packet, side: Side) -> Result<(), Outcome> {
    let headers = parse::headers::<F>(packet)?;
    let PacketKind::Transport(transport) = headers.kind() else {
        return Err(Outcome::Malformed);
    };
    let first = FirstFragment {
        ports: transport.ports,
        received: headers.network.payload_len as u16,
        total: 0,
        seen_ns: clock::now_ns(),
    };
    F::fragments()
        .insert(key::<F>(packet, side)?, first, 0)
        .map_err(|_| Outcome::FlowTableFull)
}

/// Holds a fragment whose first one has not arrived. Returns `false` if it is not for the router, or cannot be held.
#[inline(always)]
fn hold<F: KernelFamily>(packet: &Packet, side: Side) -> Result<bool, Outcome> {
    let mut key = key::<F>(packet, side)?;
    if !addresses::is_own::<F>(side, key.addresses.destination) {
        return Ok(false);
    }
    let now_ns = clock::now_ns();
    let Some(held) = copy(packet, TO_HOLD, now_ns) else {
        return Ok(false);
    };
    for index in 0..HeldFragment::PER_PACKET {
        key.index = index;
        if let Some(other) = F::held().get_ptr(&key) {
            // SAFETY: the pointer comes from a lookup. If the element is replaced during the read, this is one of two
            // times.
            if !unsafe { (*other).is_expired(now_ns) } {
                continue;
            }
            let _ = F::held().remove(&key);
        }
        if F::held().insert(&key, held, u64::from(BPF_NOEXIST)).is_ok() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Re-injects the fragments that were held for the first one in `packet`, which is unchanged in the end.
///
/// The kernel half cannot create packets, but it can send copies of the current one. Therefore `packet` becomes each of
/// the held fragments in turn.
#[inline(always)]
fn reinject<F: KernelFamily>(packet: &Packet, side: Side) -> Result<(), Outcome> {
    let mut key = key::<F>(packet, side)?;
    if F::held().get_ptr(&key).is_none() {
        return Ok(());
    }
    let now_ns = clock::now_ns();
    let Some(own) = copy(packet, FIRST, now_ns) else {
        return Ok(());
    };
    for index in 0..HeldFragment::PER_PACKET {
        key.index = index;
        let Some(held) = F::held().get_ptr(&key) else {
            break;
        };
        // SAFETY: the pointer comes from a lookup, and the kernel keeps its memory until the program ends. If another
        // fragment reuses the memory, the copy is a mix of both, which the receiver's checksum reveals.
        let held = unsafe { &*held };
        if !held.is_expired(now_ns) {
            paste(packet, held)?;
            // SAFETY: the context is valid while the program runs. If the copy fails, the held fragment is lost.
            unsafe {
                bpf_clone_redirect(
                    packet.skb(),
                    forward::ifindex(side),
                    u64::from(BPF_F_INGRESS),
                );
            }
        }
        let _ = F::held().remove(&key);
    }
    paste(packet, own)
}

/// Returns `len` if it is a possible length of a held frame.
///
/// The compiler would merge two plain comparisons into one, of a register that contains the difference to the lower
/// bound. Verifiers up to Linux 6.10 cannot derive the bounds of `len` from that.
#[inline(always)]
fn frame_len(len: u32) -> Option<u32> {
    if len > HELD_LEN as u32 {
        return None;
    }
    let same: u64;
    // SAFETY: this copies a register. The compiler does not know that both numbers are equal, but the verifier does.
    unsafe {
        asm!(
            "{same} = {len}",
            same = lateout(reg) same,
            len = in(reg) u64::from(len),
            options(pure, nomem, nostack),
        );
    }
    if same < ETHERNET_HEADER_LEN as u64 {
        return None;
    }
    Some(same as u32)
}

/// Copies the whole frame into this element of `TEMP_FRAMES`, if it fits.
#[inline(always)]
fn copy(packet: &Packet, index: u32, now_ns: u64) -> Option<&'static HeldFragment> {
    let frame = maps::TEMP_FRAMES.get_ptr_mut(index)?;
    let len = frame_len(packet.len() as u32)?;
    // SAFETY: the element belongs to this CPU and has room for `len` bytes. The context is valid while the program
    // runs.
    unsafe {
        (*frame).seen_ns = now_ns;
        (*frame).len = len;
        let bytes = (&raw mut (*frame).frame).cast();
        if bpf_skb_load_bytes(packet.skb().cast(), 0, bytes, len) != 0 {
            return None;
        }
        Some(&*frame)
    }
}

/// Replaces the packet by this frame.
#[inline(always)]
fn paste(packet: &Packet, frame: &HeldFragment) -> Result<(), Outcome> {
    let len = frame_len(frame.len).ok_or(Outcome::RewriteFailed)?;
    let skb = packet.skb();
    // SAFETY: the context is valid while the program runs, and `frame` has at least `len` bytes.
    let pasted = unsafe {
        bpf_skb_change_tail(skb, len, 0) == 0
            && bpf_skb_store_bytes(
                skb,
                0,
                frame.frame.as_ptr().cast(),
                len,
                u64::from(BPF_F_RECOMPUTE_CSUM),
            ) == 0
    };
    if pasted {
        Ok(())
    } else {
        Err(Outcome::RewriteFailed)
    }
}

/// Translates a later fragment that arrived on `side` with the flow of its first one.
#[inline(always)]
fn follow<F: KernelFamily>(packet: &Packet, side: Side) -> Result<Followed, Outcome> {
    let network = parse::headers::<F>(packet)?.network;
    let fragment = F::fragment(packet)?;
    let (protocol, ttl, len) = (network.protocol, network.ttl, network.payload_len);
    let key = FragmentKey::new(side, protocol, network.addresses, fragment.id);
    let Some(first) = F::fragments().get_ptr_mut(&key) else {
        return Ok(Followed::NoFirst);
    };
    // SAFETY: the pointer comes from a lookup, and the kernel keeps its memory until the program ends. If the element
    // is replaced in the meantime, this reads another packet's ports at worst, or keeps that packet's element for
    // longer.
    let first = unsafe { &mut *first };
    if first.is_expired(clock::now_ns()) {
        return Ok(Followed::NoFirst);
    }
    let tuple = &mut F::temp_flow()?.lookup;
    *tuple = network.tuple(side, first.ports);
    let Some(flow) = flows::find::<F>(tuple) else {
        return Ok(Followed::NoFlow);
    };
    fragment.check(protocol, len)?;
    let ports = first.ports;
    if first.is_completed_by(&fragment, len) {
        // This fails if the element was evicted.
        let _ = F::fragments().remove(&key);
    }
    if ttl <= 1 {
        return Err(Outcome::TtlExceeded);
    }
    if packet.len() - ETHERNET_HEADER_LEN > maps::config()?.mtu(side.opposite()) as usize {
        return Err(Outcome::PacketTooBig);
    }
    let translation = flow.translation();
    if protocol == protocol::SCTP && translation.ports != ports {
        // The first one failed in the same way; see `rewrite`.
        return Err(Outcome::RewriteFailed);
    }
    F::rewrite_addresses(
        packet,
        ETHERNET_HEADER_LEN,
        translation.addresses,
        translation.address_delta,
    )?;
    F::decrement_ttl(packet)?;
    flow.account(packet, side, tcp::Flags(0), 0);
    Ok(Followed::Translated)
}
