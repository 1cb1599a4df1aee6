//! The rewriting of a packet, the same for both families and both directions.

use egress_common::{NetworkHeader, Outcome, Translation, TransportHeader};

use crate::{
    family::Pipeline,
    packet::{ChecksumPart, Packet},
};

/// Gives the packet its new addresses and ports, and mends its checksums.
#[inline(always)]
pub fn rewrite<F: Pipeline>(
    packet: &Packet<'_>,
    network: &NetworkHeader<F::Address>,
    translation: &Translation<F::Address>,
) -> Result<(), Outcome> {
    let protocol = network.protocol;
    let checksum = network.payload_offset + TransportHeader::checksum_offset(protocol);
    F::rewrite_header(packet, translation)?;
    packet.store(network.payload_offset, translation.ports)?;
    // The helper last: it voids what the verifier knows of the packet. A delta of 0 changes nothing.
    if translation.address_delta != 0 {
        packet.update_checksum(
            protocol,
            checksum,
            translation.address_delta,
            ChecksumPart::PseudoHeader,
        )?;
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
