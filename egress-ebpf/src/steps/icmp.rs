//! Translating ICMP errors: the message itself, and the inner packet.
//!
//! The error is sent to the source of the inner packet. From the outside, that is the router. So the inner packet has
//! the router's addresses, where the other side of the flow expects its own. With source and destination swapped, its
//! tuple is that of an answer, and finds the flow.

use egress_common::{
    Bytes as _, ECHO_IDENTIFIER, ETHERNET_HEADER_LEN, ICMP_HEADER_LEN, Outcome, Pair, Port, Ports,
    Side, TransportHeader, Tuple, checksum, protocol,
};

use super::{addresses, flows, parse, rewrite};
use crate::primitives::{family::KernelFamily, maps, packet::Packet};

/// The offset of a message's checksum (RFC 792, RFC 4443).
const CHECKSUM: usize = 2;

/// The maximum length of an error's headers: Ethernet, IP with options or extensions, ICMP, IP again, and 20 bytes of
/// the transport header.
const HEADERS_LEN: u32 = 14 + 60 + 8 + 60 + 20;

global_fn! {
    /// Translates an ICMP error that arrived on `side`, if it belongs to a flow.
    pub fn translate<F>(packet: &Packet, side: Side) -> Result<(), Outcome> = translate_error::<F>;
    V4 => translate_icmp_error_v4, V6 => translate_icmp_error_v6
}

/// This function reads addresses again instead of keeping them, because the stack has no room for all of them.
#[inline(always)]
fn translate_error<F: KernelFamily>(packet: &Packet, side: Side) -> Result<(), Outcome> {
    packet.pull(HEADERS_LEN);
    let network = F::network_header(packet, ETHERNET_HEADER_LEN)?;
    let message = network.payload_offset;
    let expired = network.ttl <= 1;
    let inner_offset = message + ICMP_HEADER_LEN;
    let inner = F::network_header(packet, inner_offset)?;
    let (protocol, transport) = (inner.protocol, inner.payload_offset);
    let inner_len = inner.payload_len;
    let Some(ports) = parse::ports::<F>(packet, &inner) else {
        return Err(unrelated::<F>(packet, side, None));
    };
    let received: Pair<F::Address> = packet
        .load(ETHERNET_HEADER_LEN + F::ADDRESSES)
        .ok_or(Outcome::Truncated)?;
    if received.destination != inner.addresses.source {
        // The error is not addressed to the inner packet's sender.
        return Err(unrelated::<F>(packet, side, None));
    }
    let tuple = Tuple::new(side, protocol, inner.addresses.swapped(), ports.swapped());
    let Some(flow) = flows::find::<F>(&tuple) else {
        // An echo identifier does not tell whose it is: the pod's own pings may use any.
        let port = (protocol != F::ICMP).then_some(ports.source);
        return Err(unrelated::<F>(packet, side, port));
    };
    if expired {
        return Err(Outcome::TtlExceeded);
    }
    let translation = flow.translation();
    // The message leaves with the flow's addresses, even if a host on the path has sent it: only those are known on the
    // other side. The inner packet travelled in the opposite direction.
    let outer = rewrite_addresses::<F>(packet, ETHERNET_HEADER_LEN, &translation.addresses)?;
    F::decrement_ttl(packet)?;
    let inner = rewrite_addresses::<F>(packet, inner_offset, &translation.addresses.swapped())?;
    let change = rewrite_transport::<F>(
        packet,
        protocol,
        transport,
        translation.ports.swapped(),
        inner,
        inner_len,
    )?;
    let checksum: u16 = packet
        .load(message + CHECKSUM)
        .ok_or(Outcome::RewriteFailed)?;
    let mut checksum = checksum::apply(checksum, change);
    if F::IS_V6 {
        // For the message's own pseudo header, and for the inner packet, whose header has no checksum that would cancel
        // the change out.
        checksum = checksum::apply(checksum::apply(checksum, outer), inner);
    }
    packet.store(message + CHECKSUM, checksum)
}

/// Writes the addresses of the IP header at `offset`, and returns the checksum delta.
#[inline(never)]
fn rewrite_addresses<F: KernelFamily>(
    packet: &Packet,
    offset: usize,
    addresses: &Pair<F::Address>,
) -> Result<u16, Outcome> {
    let before: Pair<F::Address> = packet
        .load(offset + F::ADDRESSES)
        .ok_or(Outcome::RewriteFailed)?;
    let delta = checksum::delta(before.sum(), addresses.sum());
    F::rewrite_addresses(packet, offset, *addresses, delta)?;
    Ok(delta)
}

/// The outcome of an error that belongs to no flow. It passes only if it may belong to the pod's own connections.
#[inline(always)]
fn unrelated<F: KernelFamily>(packet: &Packet, side: Side, port: Option<Port>) -> Outcome {
    let Some(addresses) = packet.load::<Pair<F::Address>>(ETHERNET_HEADER_LEN + F::ADDRESSES)
    else {
        return Outcome::Truncated;
    };
    if !addresses::is_own::<F>(side, addresses.destination) {
        return match side {
            Side::Cluster => Outcome::NotForRouter,
            Side::Egress => Outcome::NotForEgress,
        };
    }
    let is_of_a_flow = match (side, port, maps::config()) {
        // The pod's own sockets use ports outside of the NAT range.
        (Side::Egress, Some(port), Ok(config)) => config.nat_range.contains(port),
        _ => false,
    };
    match side {
        _ if is_of_a_flow => Outcome::UnrelatedIcmpError,
        Side::Cluster => Outcome::NoRule,
        Side::Egress => Outcome::EgressOwn,
    }
}

/// Replaces the inner packet's ports by those that its sender knows. If its checksum is included, updates it for the
/// ports and by `address_delta`. Returns the delta of the message's own checksum.
#[inline(always)]
fn rewrite_transport<F: KernelFamily>(
    packet: &Packet,
    protocol: u8,
    transport: usize,
    ports: Ports,
    address_delta: u16,
    length: usize,
) -> Result<u16, Outcome> {
    let old: Ports = if protocol == F::ICMP {
        let identifier: Port = packet
            .load(transport + ECHO_IDENTIFIER)
            .ok_or(Outcome::RewriteFailed)?;
        Ports {
            source: identifier,
            destination: Port::new(0),
        }
    } else {
        packet.load(transport).ok_or(Outcome::RewriteFailed)?
    };
    let port_delta = checksum::delta(old.sum(), ports.sum());
    rewrite::store_ports::<F>(packet, protocol, transport, ports)?;
    if protocol == protocol::SCTP {
        // The change of the CRC does not depend on the bytes that are missing.
        let (old, new) = (bytemuck::cast(old), bytemuck::cast(ports));
        let checksum_delta = rewrite::update_sctp_checksum(packet, transport, old, new, length)?;
        return Ok(checksum::fold(
            u32::from(port_delta) + u32::from(checksum_delta),
        ));
    }
    let checksum_offset = transport + TransportHeader::checksum_offset(protocol);
    let Some(before) = packet.load::<u16>(checksum_offset) else {
        return Ok(port_delta);
    };
    if protocol == protocol::UDP && before == 0 {
        return Ok(port_delta);
    }
    let covered = if protocol == F::ICMP && !F::IS_V6 {
        0
    } else {
        address_delta
    };
    let mut after = checksum::apply(checksum::apply(before, covered), port_delta);
    if protocol == protocol::UDP && after == 0 {
        // A UDP checksum of 0 would mean none (RFC 768).
        after = 0xffff;
    }
    packet.store(checksum_offset, after)?;
    let checksum_delta = checksum::delta(u32::from(before), u32::from(after));
    Ok(checksum::fold(
        u32::from(port_delta) + u32::from(checksum_delta),
    ))
}
