//! Clamping the MSS of a SYN to what both interfaces carry.

use egress_common::{Outcome, Side, TransportHeader, mss};

use super::parse;
use crate::primitives::{
    family::KernelFamily,
    maps,
    packet::{ChecksumPart, Packet},
};

/// No header ends beyond this offset. The verifier accepts no larger number as an offset.
const LARGEST_OFFSET: u32 = 0x7fff;

global_fn! {
    /// Clamps the MSS of a TCP segment with SYN.
    pub fn clamp<F>(packet: &Packet) -> Result<(), Outcome> = clamp_segment_size::<F>;
    V4 => clamp_tcp_mss_v4, V6 => clamp_tcp_mss_v6
}

global_fn! {
    /// [`mss::find`]; 0 for none.
    fn find_option(packet: &Packet, transport: u32) -> Result<u32, Outcome> = find;
    find_tcp_mss
}

#[inline(always)]
fn find(packet: &Packet, transport: u32) -> Result<u32, Outcome> {
    let option = mss::find(packet, (transport & LARGEST_OFFSET) as usize)?;
    Ok(option.unwrap_or(0) as u32 & LARGEST_OFFSET)
}

#[inline(always)]
fn clamp_segment_size<F: KernelFamily>(packet: &Packet) -> Result<(), Outcome> {
    /// Ethernet, IP with options or extensions, TCP with all its options.
    const HEADERS_LEN: u32 = 14 + 100 + 60;
    let config = maps::config()?;
    let (cluster, egress) = (config.mtu(Side::Cluster), config.mtu(Side::Egress));
    let mtu = if cluster < egress { cluster } else { egress };
    let headers = F::HEADER_LEN + mss::TCP_HEADER_LEN;
    // An MTU above 64 KiB needs no clamping. One below the length of the headers makes no sense.
    let Some(limit) = u16::try_from(mtu)
        .ok()
        .and_then(|mtu| mtu.checked_sub(headers as u16))
    else {
        return Ok(());
    };
    packet.pull(HEADERS_LEN);
    let network = parse::headers::<F>(packet)?.network;
    let transport = network.payload_offset;
    let option = find_option(packet, transport as u32)?;
    // The compiler knows that the mask changes nothing, but the verifier does not.
    let option = (core::hint::black_box(option) & LARGEST_OFFSET) as usize;
    if option == 0 {
        return Ok(());
    }
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
