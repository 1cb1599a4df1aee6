//! Rewriting a packet, which both families and both directions share.

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
        // Before anything is changed, as it may fail. Addresses have no part in its checksum.
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
    // The helpers last: they void what the verifier knows of the packet. A delta of 0 changes nothing.
    let checksum = transport + TransportHeader::checksum_offset(protocol);
    // ICMPv6 has a pseudo header, ICMP has none.
    if translation.address_delta != 0 && (F::IS_V6 || protocol != F::ICMP) {
        let delta = translation.address_delta;
        packet.update_checksum(protocol, checksum, delta, ChecksumPart::PseudoHeader)?;
        if F::IS_V6 {
            // The helper takes the addresses for the pseudo header's alone, and updates the device's sum by them. Here
            // they are in the packet as well, without a header checksum that would make up for them.
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

/// The identifier of an echo message: one of its ports, as the other is 0.
#[inline(always)]
pub fn identifier(ports: Ports) -> Port {
    Port::new(ports.source.number() | ports.destination.number())
}

/// SCTP has a CRC over its own bytes only.
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
        // How far the ports are from the end of the packet is not known yet.
        return Err(Outcome::RewriteFailed);
    }
    packet.store(transport, ports)?;
    update_sctp_checksum(packet, transport, old, new, network.payload_len).map(|_| ())
}

/// Updates the CRC of the SCTP packet of `length` bytes at `transport`, whose ports were replaced. Returns what that
/// adds to an Internet checksum over the packet.
#[inline(always)]
pub fn update_sctp_checksum(
    packet: &Packet,
    transport: usize,
    old: u32,
    new: u32,
    length: usize,
) -> Result<u16, Outcome> {
    let offset = transport + TransportHeader::checksum_offset(protocol::SCTP);
    // An error may contain less than that.
    let Some(before) = packet.load::<u32>(offset) else {
        return Ok(0);
    };
    // 0 is left to the device, which has not computed it yet (`CHECKSUM_PARTIAL`).
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
