//! Fragments: the first one names the flow for the rest.

use egress_common::{ETHERNET_HEADER_LEN, FirstFragment, FragmentKey, Outcome, Side, Tuple, tcp};

use crate::{clock, family::Pipeline, flows, packet::Packet};

/// Remembers the ports of a first fragment that arrived on `side`.
#[inline(always)]
pub fn remember<F: Pipeline>(packet: &Packet, side: Side) -> Result<(), Outcome> {
    let headers = packet.headers::<F>()?;
    let id = F::fragment(packet)?.id;
    let key = FragmentKey::new(
        side,
        headers.network.protocol,
        headers.network.addresses,
        id,
    );
    let first = FirstFragment {
        ports: headers.transport?.ports,
        padding: 0,
        seen_ns: clock::now_ns(),
    };
    F::fragments()
        .insert(key, first, 0)
        .map_err(|_| Outcome::FlowTableFull)
}

/// Translates a later fragment that arrived on `side`, if the flow of its first one is known.
#[inline(always)]
pub fn translate<F: Pipeline>(packet: &Packet, side: Side) -> Result<(), Outcome> {
    let network = packet.headers::<F>()?.network;
    let fragment = F::fragment(packet)?;
    let (protocol, ttl, len) = (network.protocol, network.ttl, network.payload_len);
    let key = FragmentKey::new(side, protocol, network.addresses, fragment.id);
    // SAFETY: what is read of an element that is replaced meanwhile is the ports of another packet at worst.
    let first = unsafe { F::fragments().get(key) }.ok_or(Outcome::Fragment)?;
    if first.is_expired(clock::now_ns()) {
        return Err(Outcome::Fragment);
    }
    let scratch = F::scratch().ok_or(Outcome::NotConfigured)?;
    scratch.tuple = Tuple::new(side, protocol, network.addresses, first.ports);
    let flow = flows::find::<F>(&scratch.tuple).ok_or(Outcome::Fragment)?;
    fragment.check(protocol, len)?;
    if ttl <= 1 {
        return Err(Outcome::TtlExceeded);
    }
    let translation = flow.translation();
    F::rewrite_addresses(
        packet,
        ETHERNET_HEADER_LEN,
        translation.addresses,
        translation.address_delta,
    )?;
    F::decrement_ttl(packet)?;
    flow.count(packet, side, tcp::Flags(0), 0);
    Ok(())
}
