//! Clamping the segment size that a SYN asks for to what both sides of the router can carry.

use egress_common::{Outcome, Side, TransportHeader, mss};

use crate::{
    family::Pipeline,
    maps,
    packet::{ChecksumPart, Packet},
    rare,
};

/// Clamps the segment size of a TCP segment with SYN.
#[inline(always)]
pub fn clamp<F: Pipeline>(packet: &Packet) -> Result<(), Outcome> {
    /// Ethernet, IP with options or extensions, TCP with all its options.
    const HEADERS_LEN: u32 = 14 + 100 + 60;
    let config = maps::CONFIG.get(0).ok_or(Outcome::NotConfigured)?;
    let (cluster, egress) = (config.mtu(Side::Cluster), config.mtu(Side::Egress));
    let mtu = if cluster < egress { cluster } else { egress };
    let headers = F::HEADER_LEN + mss::TCP_HEADER_LEN;
    // An MTU above 64 KiB limits nothing, and one below the headers makes no sense.
    let Some(limit) = u16::try_from(mtu)
        .ok()
        .and_then(|mtu| mtu.checked_sub(headers as u16))
    else {
        return Ok(());
    };
    packet.pull(HEADERS_LEN);
    let network = packet.headers::<F>()?.network;
    let transport = network.payload_offset;
    let Some(option) = rare::find_segment_size(packet, transport)? else {
        return Ok(());
    };
    let Some(clamp) = mss::clamp(packet, transport, option, limit)? else {
        return Ok(());
    };
    packet.store(clamp.offset, clamp.size)?;
    let checksum = transport + TransportHeader::checksum_offset(network.protocol);
    packet.update_checksum(
        network.protocol,
        checksum,
        clamp.delta,
        ChecksumPart::Payload,
    )
}
