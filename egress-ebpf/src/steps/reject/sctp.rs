//! Refusing an SCTP association, as an endpoint without a listener does.

use aya_ebpf::helpers::bpf_skb_change_tail;
use egress_common::{
    Bytes as _, ETHERNET_HEADER_LEN, Outcome, Pair, Ports, TransportHeader, V4, V6, protocol,
    sctp::{self, chunk},
};

use crate::{
    primitives::{family::KernelFamily, limit::is_within_limit, packet::Packet},
    steps::parse,
};

/// Length of the common header and an ABORT chunk.
const ABORT_LEN: usize = 12 + 4;

global_fn! {
    /// Turns a packet with INIT into the packet with ABORT that answers it (RFC 9260, section 8.4).
    ///
    /// # Errors
    ///
    /// The packet must be dropped without an answer.
    pub fn turn_into_abort(packet: &Packet) -> Result<(), Outcome> = turn;
    send_sctp_abort
}

#[inline(always)]
fn turn(packet: &Packet) -> Result<(), Outcome> {
    if packet.is_v6() {
        turn_family::<V6>(packet)
    } else {
        turn_family::<V4>(packet)
    }
}

#[inline(always)]
fn turn_family<F: KernelFamily>(packet: &Packet) -> Result<(), Outcome> {
    const REFUSED: Outcome = Outcome::SctpRefused;
    let transport = ETHERNET_HEADER_LEN + F::HEADER_LEN;
    // IP options or extension headers do not occur with SCTP in practice.
    if parse::headers::<F>(packet)?.network.payload_offset != transport || !is_within_limit() {
        return Err(REFUSED);
    }
    let checksum = transport + TransportHeader::checksum_offset(protocol::SCTP);
    let tag: u32 = packet
        .load(transport + TransportHeader::INITIATE_TAG_OFFSET)
        .ok_or(REFUSED)?;
    // SAFETY: the context is valid while the program runs.
    let resized =
        unsafe { bpf_skb_change_tail(packet.skb(), (transport + ABORT_LEN) as u32, 0) == 0 };
    if !resized {
        return Err(Outcome::RewriteFailed);
    }
    packet.pull((transport + ABORT_LEN) as u32);
    let received: Pair<F::Address> = packet
        .load(ETHERNET_HEADER_LEN + F::ADDRESSES)
        .ok_or(REFUSED)?;
    F::store_header(
        packet,
        received.swapped(),
        protocol::SCTP,
        F::HEADER_LEN + ABORT_LEN,
    )?;
    let ports: Ports = packet.load(transport).ok_or(REFUSED)?;
    let ports = ports.swapped();
    let abort = u32::from_ne_bytes([chunk::ABORT, 0, 0, 4]);
    packet.store(transport, ports)?;
    packet.store(transport + TransportHeader::SEQUENCE_OR_TAG_OFFSET, tag)?;
    packet.store(transport + ABORT_LEN - 4, abort)?;
    let left_to_the_device = packet.load::<u32>(checksum).ok_or(REFUSED)? == 0;
    if left_to_the_device {
        return Ok(());
    }
    let words = [bytemuck::cast(ports), tag, 0, abort].map(u32::from_le);
    packet.store(checksum, sctp::checksum(words).to_le())
}
