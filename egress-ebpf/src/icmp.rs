//! Translating ICMP errors: the message itself, and inside it the beginning of the packet that caused it.
//!
//! An error comes to the sender of that packet, which to the outside is the router: the packet inside has the router's
//! addresses where the flow's other side knows its own. Reversed, its tuple is that of an answer, and finds the flow.

use egress_common::{
    Bytes as _, ECHO_IDENTIFIER, ETHERNET_HEADER_LEN, ICMP_HEADER_LEN, IcmpHeader, NetworkHeader,
    Outcome, Pair, Port, Ports, Side, Translation, TransportHeader, Tuple, checksum, protocol,
};

use crate::{addresses, family::Pipeline, flows, maps, packet::Packet, rewrite};

/// Where the checksum of a message stands (RFC 792, RFC 4443).
const CHECKSUM: usize = 2;

/// The headers of an error: Ethernet, IP with options or extensions, ICMP, IP again, and 20 bytes of the transport.
const HEADERS_LEN: u32 = 14 + 60 + 8 + 60 + 20;

/// Translates an error that arrived on `side`, if it tells of a flow.
#[inline(always)]
pub fn translate_error<F: Pipeline>(packet: &Packet, side: Side) -> Result<(), Outcome> {
    packet.pull(HEADERS_LEN);
    let network = F::network_header(packet, ETHERNET_HEADER_LEN)?;
    let inside_offset = network.payload_offset + ICMP_HEADER_LEN;
    let inside = F::network_header(packet, inside_offset)?;
    let Some(ports) = ports_inside::<F>(packet, &inside) else {
        return Err(unrelated::<F>(&network, side, None));
    };
    let tuple = Tuple::new(
        side,
        inside.protocol,
        inside.addresses.swapped(),
        ports.swapped(),
    );
    let Some(flow) = flows::find::<F>(&tuple) else {
        return Err(unrelated::<F>(&network, side, Some(ports.source)));
    };
    if network.ttl <= 1 {
        return Err(Outcome::TtlExceeded);
    }
    let translation = flow.translation();
    // The message leaves with the addresses of the flow, whichever host on the way has sent it: only those mean anything
    // on the other side. The packet inside is one of the other direction.
    let outside_delta = checksum::delta(network.addresses.sum(), translation.addresses.sum());
    F::rewrite_addresses(
        packet,
        ETHERNET_HEADER_LEN,
        translation.addresses,
        outside_delta,
    )?;
    F::decrement_ttl(packet)?;
    let change = rewrite_inside::<F>(packet, &inside, inside_offset, translation)?;
    let mut checksum: u16 = packet
        .load(network.payload_offset + CHECKSUM)
        .ok_or(Outcome::RewriteFailed)?;
    checksum = checksum::apply(checksum, change);
    if F::IS_V6 {
        checksum = checksum::apply(checksum, outside_delta);
    }
    packet.store(network.payload_offset + CHECKSUM, checksum)
}

/// The ports of the packet inside an error; only their first four bytes, and an echo's first eight, are sure to be there.
#[inline(always)]
fn ports_inside<F: Pipeline>(packet: &Packet, inside: &NetworkHeader<F::Address>) -> Option<Ports> {
    if inside.is_fragment {
        return None;
    }
    match inside.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => packet.load(inside.payload_offset),
        protocol if protocol == F::ICMP => packet
            .load::<IcmpHeader>(inside.payload_offset)?
            .echo_ports::<F>()
            .ok(),
        _ => None,
    }
}

/// What becomes of an error about no flow: the pod's own connections get theirs, nobody else.
#[inline(always)]
fn unrelated<F: Pipeline>(
    network: &NetworkHeader<F::Address>,
    side: Side,
    port: Option<Port>,
) -> Outcome {
    let destination = network.addresses.destination;
    if !addresses::is_own::<F>(side, destination) {
        return match side {
            Side::Cluster => Outcome::NotForRouter,
            Side::Egress => Outcome::NotForEgress,
        };
    }
    let is_of_a_flow = match (side, port, maps::CONFIG.get(0)) {
        // The pod's own sockets use ports outside of the range.
        (Side::Egress, Some(port), Some(config)) => config.nat_range.contains(port),
        _ => false,
    };
    match side {
        _ if is_of_a_flow => Outcome::UnrelatedIcmpError,
        Side::Cluster => Outcome::NoRule,
        Side::Egress => Outcome::EgressOwn,
    }
}

/// Gives the packet inside the addresses and ports that its sender knows it by; what the bytes from its IP header on add
/// to the message's checksum then.
#[inline(always)]
fn rewrite_inside<F: Pipeline>(
    packet: &Packet,
    inside: &NetworkHeader<F::Address>,
    offset: usize,
    translation: &Translation<F::Address>,
) -> Result<u16, Outcome> {
    let addresses: Pair<F::Address> = translation.addresses.swapped();
    let ports = translation.ports.swapped();
    let address_delta = checksum::delta(inside.addresses.sum(), addresses.sum());
    F::rewrite_addresses(packet, offset, addresses, address_delta)?;
    // An IPv4 header's checksum makes up for its addresses; IPv6 has none.
    let mut change = if F::IS_V6 { address_delta } else { 0 };

    let old: Ports = if inside.protocol == F::ICMP {
        let identifier: Port = packet
            .load(inside.payload_offset + ECHO_IDENTIFIER)
            .ok_or(Outcome::RewriteFailed)?;
        Ports {
            source: identifier,
            destination: Port::new(0),
        }
    } else {
        packet
            .load(inside.payload_offset)
            .ok_or(Outcome::RewriteFailed)?
    };
    let port_delta = checksum::delta(old.sum(), ports.sum());
    rewrite::store_ports::<F>(packet, inside.protocol, inside.payload_offset, ports)?;
    change = checksum::fold(u32::from(change) + u32::from(port_delta));

    // The checksum of the packet inside, where the message is long enough to have it.
    if inside.protocol == protocol::SCTP {
        // A CRC over a packet that is not there in full cannot be checked by anyone.
        return Ok(change);
    }
    let checksum_offset = inside.payload_offset + TransportHeader::checksum_offset(inside.protocol);
    if let Some(before) = packet.load::<u16>(checksum_offset)
        && (inside.protocol != protocol::UDP || before != 0)
    {
        let covered = if inside.protocol == F::ICMP && !F::IS_V6 {
            0
        } else {
            address_delta
        };
        let after = checksum::apply(checksum::apply(before, covered), port_delta);
        packet.store(checksum_offset, after)?;
        change = checksum::fold(
            u32::from(change) + u32::from(checksum::delta(u32::from(before), u32::from(after))),
        );
    }
    Ok(change)
}
