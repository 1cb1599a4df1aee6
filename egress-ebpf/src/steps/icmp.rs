//! Translating ICMP errors: the message itself, and inside it the beginning of the packet that caused it.
//!
//! An error comes to the sender of that packet, which to the outside is the router: the packet inside has the router's
//! addresses where the flow's other side knows its own. Reversed, its tuple is that of an answer, and finds the flow.

use egress_common::{
    Bytes as _, ECHO_IDENTIFIER, ETHERNET_HEADER_LEN, ICMP_HEADER_LEN, Outcome, Pair, Port, Ports,
    Side, TransportHeader, Tuple, checksum, protocol,
};

use super::{addresses, flows, parse, rewrite};
use crate::primitives::{family::KernelFamily, maps, packet::Packet};

/// Where the checksum of a message stands (RFC 792, RFC 4443).
const CHECKSUM: usize = 2;

/// The headers of an error: Ethernet, IP with options or extensions, ICMP, IP again, and 20 bytes of the transport.
const HEADERS_LEN: u32 = 14 + 60 + 8 + 60 + 20;

global_fn! {
    /// Translates an error that arrived on `side`, if it tells of a flow.
    pub fn translate<F>(packet: &Packet, side: Side) -> Result<(), Outcome> = translate_error::<F>;
    V4 => translate_icmp_error_v4, V6 => translate_icmp_error_v6
}

/// Addresses are read where they are needed, again if need be: the stack has no room for all of them at once.
#[inline(always)]
fn translate_error<F: KernelFamily>(packet: &Packet, side: Side) -> Result<(), Outcome> {
    packet.pull(HEADERS_LEN);
    let network = F::network_header(packet, ETHERNET_HEADER_LEN)?;
    let message = network.payload_offset;
    let expired = network.ttl <= 1;
    let inside_offset = message + ICMP_HEADER_LEN;
    let inside = F::network_header(packet, inside_offset)?;
    let (protocol, transport) = (inside.protocol, inside.payload_offset);
    let inside_len = inside.payload_len;
    let Some(ports) = parse::ports::<F>(packet, &inside) else {
        return Err(unrelated::<F>(packet, side, None));
    };
    let received: Pair<F::Address> = packet
        .load(ETHERNET_HEADER_LEN + F::ADDRESSES)
        .ok_or(Outcome::Truncated)?;
    if received.destination != inside.addresses.source {
        // Not for the sender of the packet inside.
        return Err(unrelated::<F>(packet, side, None));
    }
    let tuple = Tuple::new(side, protocol, inside.addresses.swapped(), ports.swapped());
    let Some(flow) = flows::find::<F>(&tuple) else {
        // An echo's identifier says nothing of whose it is: the pod's own pings have any.
        let port = (protocol != F::ICMP).then_some(ports.source);
        return Err(unrelated::<F>(packet, side, port));
    };
    if expired {
        return Err(Outcome::TtlExceeded);
    }
    let translation = flow.translation();
    // The message leaves with the addresses of the flow, whichever host on the way has sent it: only those mean
    // anything on the other side. The packet inside is one of the other direction.
    let outside = rewrite_addresses::<F>(packet, ETHERNET_HEADER_LEN, &translation.addresses)?;
    F::decrement_ttl(packet)?;
    let inside = rewrite_addresses::<F>(packet, inside_offset, &translation.addresses.swapped())?;
    let change = rewrite_transport::<F>(
        packet,
        protocol,
        transport,
        translation.ports.swapped(),
        inside,
        inside_len,
    )?;
    let checksum: u16 = packet
        .load(message + CHECKSUM)
        .ok_or(Outcome::RewriteFailed)?;
    let mut checksum = checksum::apply(checksum, change);
    if F::IS_V6 {
        // Of the message's own pseudo header, and of the packet inside, whose header has no checksum to make up for it.
        checksum = checksum::apply(checksum::apply(checksum, outside), inside);
    }
    packet.store(message + CHECKSUM, checksum)
}

/// Writes the addresses of the IP header at `offset`. Returns what they add to a checksum.
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

/// The outcome of an error about no flow: only the pod's own connections get theirs.
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
        // The pod's own sockets use ports outside of the range.
        (Side::Egress, Some(port), Ok(config)) => config.nat_range.contains(port),
        _ => false,
    };
    match side {
        _ if is_of_a_flow => Outcome::UnrelatedIcmpError,
        Side::Cluster => Outcome::NoRule,
        Side::Egress => Outcome::EgressOwn,
    }
}

/// Gives the packet inside the ports that its sender knows, and updates its checksum, if the message contains it, by
/// them and by `address_delta`. Returns what all of this adds to the message's own checksum.
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
        // The difference that the ports make does not depend on the bytes that are missing.
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
        // 0 stands for no checksum (RFC 768).
        after = 0xffff;
    }
    packet.store(checksum_offset, after)?;
    let checksum_delta = checksum::delta(u32::from(before), u32::from(after));
    Ok(checksum::fold(
        u32::from(port_delta) + u32::from(checksum_delta),
    ))
}
