//! Parsing the headers.

use egress_common::{
    Bytes as _, ETHERNET_HEADER_LEN, Family, FlatKind, IcmpHeader, NetworkHeader, Outcome,
    PacketKind, Part, Ports, protocol,
};

use crate::primitives::packet::Packet;

/// The maximum length of the headers: Ethernet, IPv4 with all options or IPv6 with 60 bytes of extensions, TCP without
/// options.
const HEADERS_LEN: u32 = 14 + 100 + 20;

/// A packet's headers.
pub struct Headers<F: Family> {
    pub network: NetworkHeader<F::Address>,
    kind: FlatKind,
}

impl<F: Family> Headers<F> {
    #[inline(always)]
    pub const fn kind(&self) -> PacketKind {
        self.kind.kind()
    }
}

/// Reads the headers, after linearizing them if necessary.
#[inline(always)]
pub fn headers<F: Family>(packet: &Packet) -> Result<Headers<F>, Outcome> {
    match contiguous_headers(packet) {
        Err(Outcome::Truncated) => {
            packet.pull(HEADERS_LEN);
            contiguous_headers(packet)
        }
        headers => headers,
    }
}

#[inline(always)]
fn contiguous_headers<F: Family>(packet: &Packet) -> Result<Headers<F>, Outcome> {
    let network = F::network_header(packet, ETHERNET_HEADER_LEN)?.complete(packet)?;
    let kind = FlatKind::read::<F>(packet, &network)?;
    Ok(Headers { network, kind })
}

/// The IP header and ports of a packet that may be truncated or unchecked; `None` if it has no ports.
#[inline(always)]
pub fn network_and_ports<F: Family>(packet: &Packet) -> Option<(NetworkHeader<F::Address>, Ports)> {
    packet.pull(HEADERS_LEN);
    let network = F::network_header(packet, ETHERNET_HEADER_LEN).ok()?;
    let ports = ports::<F>(packet, &network)?;
    Some((network, ports))
}

/// The ports after `network`, which may be the header of an inner packet. Only the ports, or the first eight bytes of
/// an echo message, are certain to be there.
#[inline(always)]
pub fn ports<F: Family>(packet: &Packet, network: &NetworkHeader<F::Address>) -> Option<Ports> {
    if matches!(network.part, Part::Later) {
        return None;
    }
    match network.protocol {
        protocol::TCP | protocol::UDP | protocol::SCTP => packet.load(network.payload_offset),
        protocol if protocol == F::ICMP => packet
            .load::<IcmpHeader>(network.payload_offset)?
            .echo_ports::<F>()
            .ok(),
        _ => None,
    }
}
