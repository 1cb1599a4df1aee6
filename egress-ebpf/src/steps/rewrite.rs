//! Rewriting a packet, in the same way for both families and directions.

use egress_common::{
    Bytes as _, ECHO_IDENTIFIER, ETHERNET_HEADER_LEN, NetworkHeader, Outcome, Part, Port, Ports,
    Translation, TransportHeader, checksum, protocol, sctp,
};

use crate::primitives::{
    family::KernelFamily,
    packet::{ChecksumPart, Packet},
};

/// Replaces the addresses and ports, decrements the time to live, and updates the checksums.
#[inline(always)]
pub fn rewrite<F: KernelFamily>(
    packet: &Packet,
    network: &NetworkHeader<F::Address>,
    translation: &Translation<F::Address>,
) -> Result<(), Outcome> {
    let protocol = network.protocol;
    let transport = network.payload_offset;
    if protocol == protocol::SCTP {
        // This may fail, so it runs before anything is changed. The CRC does not cover addresses.
        rewrite_sctp(packet, network, translation.ports)?;
    }
    F::rewrite_addresses(
        packet,
        ETHERNET_HEADER_LEN,
        translation.addresses,
        translation.address_delta,
    )?;
    F::decrement_ttl(packet)?;
    if protocol == protocol::SCTP {
        return Ok(());
    }
    store_ports::<F>(packet, protocol, transport, translation.ports)?;
    // The helpers run last, because they invalidate what the verifier knows about the packet. A delta of 0 changes
    // nothing.
    let checksum = transport + TransportHeader::checksum_offset(protocol);
    // The checksum of ICMPv6 covers a pseudo header; that of ICMP does not.
    if translation.address_delta != 0 && (F::IS_V6 || protocol != F::ICMP) {
        let delta = translation.address_delta;
        packet.update_checksum(protocol, checksum, delta, ChecksumPart::PseudoHeader)?;
        if F::IS_V6 {
            // The helper assumes that the addresses are in the pseudo header only, and adjusts the device's sum for
            // that. Here the packet contains them as well, without a header checksum that would cancel them out.
            packet.update_device_checksum(delta);
        }
    }
    if translation.port_delta != 0 {
        packet.update_checksum(
            protocol,
            checksum,
            translation.port_delta,
            ChecksumPart::Payload,
        )?;
    }
    Ok(())
}

/// Writes the ports, or the identifier of an echo message.
#[inline(always)]
pub fn store_ports<F: KernelFamily>(
    packet: &Packet,
    protocol: u8,
    transport: usize,
    ports: Ports,
) -> Result<(), Outcome> {
    if protocol == F::ICMP {
        packet.store(transport + ECHO_IDENTIFIER, identifier(ports))
    } else {
        packet.store(transport, ports)
    }
}

/// The identifier of an echo message: one of its ports; the other is 0.
#[inline(always)]
pub fn identifier(ports: Ports) -> Port {
    Port::new(ports.source.number() | ports.destination.number())
}

/// Updates SCTP's CRC, which covers only the packet's own bytes.
#[inline(always)]
fn rewrite_sctp<A>(
    packet: &Packet,
    network: &NetworkHeader<A>,
    ports: Ports,
) -> Result<(), Outcome> {
    let transport = network.payload_offset;
    let old: u32 = packet.load(transport).ok_or(Outcome::RewriteFailed)?;
    let new: u32 = bytemuck::cast(ports);
    if matches!(network.part, Part::First) && old != new {
        // In a first fragment, the distance from the ports to the end of the packet is unknown.
        return Err(Outcome::RewriteFailed);
    }
    packet.store(transport, ports)?;
    update_sctp_checksum(packet, transport, old, new, network.payload_len).map(|_| ())
}

/// Updates the CRC of the SCTP packet of `length` bytes at `transport` for replaced ports. Returns the delta for an
/// Internet checksum that covers the packet.
#[inline(always)]
pub fn update_sctp_checksum(
    packet: &Packet,
    transport: usize,
    old: u32,
    new: u32,
    length: usize,
) -> Result<u16, Outcome> {
    let offset = transport + TransportHeader::checksum_offset(protocol::SCTP);
    // The inner packet of an ICMP error may be cut before the CRC.
    let Some(before) = packet.load::<u32>(offset) else {
        return Ok(0);
    };
    // 0 means that the device has yet to compute the CRC (`CHECKSUM_PARTIAL`).
    if before == 0 || old == new {
        return Ok(0);
    }
    let after = before ^ sctp_checksum_delta(old, new, length as u32);
    packet.store(offset, after)?;
    let sum = |word: u32| (word & 0xffff) + (word >> 16);
    Ok(checksum::delta(sum(before), sum(after)))
}

global_fn! {
    /// [`sctp::checksum_delta`] of words as they lie in memory.
    fn sctp_checksum_delta(old: u32, new: u32, length: u32) -> u32 = checksum_delta;
    update_sctp_crc
}

#[inline(always)]
fn checksum_delta(old: u32, new: u32, length: u32) -> u32 {
    // The mask gives the verifier a bound.
    let length = length as usize & 0xffff;
    sctp::checksum_delta(u32::from_le(old), u32::from_le(new), length).to_le()
}
