//! ICMP errors of the router's own, each made out of the packet that it tells of.
//!
//! The packet is cut behind its transport header, gets an IP and an ICMP header in front, and leaves by the interface
//! that it arrived on. The error's source is the address that the packet was sent to, which is the router's own.

use aya_ebpf::{
    bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    helpers::{bpf_skb_adjust_room, bpf_skb_change_tail},
};
use egress_common::{
    Bytes as _, ETHERNET_HEADER_LEN, ICMP_HEADER_LEN, NetworkHeader, Outcome, PacketKind, Pair,
    Part, Side, TransportHeader, V4, V6, checksum, protocol,
};

use crate::{
    primitives::{
        family::KernelFamily,
        limit::is_within_limit,
        maps,
        packet::{ChecksumPart, Packet},
    },
    steps::parse,
};

/// How much of the transport header goes with an error. At least 8 bytes (RFC 792); with 20 the checksum is among them,
/// which the kernel insists on while it is left to the device.
const TRANSPORT_LEN: usize = 20;

/// The longest part of a packet that goes with an error, in bytes.
const INSIDE_LEN: usize = 128;

/// What differs between ICMP and ICMPv6.
trait ErrorFamily: KernelFamily {
    /// Type and code of the error for an outcome.
    fn message(outcome: Outcome) -> [u8; 2];

    /// The sum of what the checksum covers beside the message: the pseudo header.
    fn pseudo_header(addresses: &Pair<Self::Address>, len: usize) -> u32;

    /// The message's second word, for a way out that carries packets of `mtu` bytes.
    fn mtu_word(mtu: u32) -> [u8; 4];
}

impl ErrorFamily for V4 {
    #[inline(always)]
    fn message(outcome: Outcome) -> [u8; 2] {
        match outcome {
            // Destination unreachable: fragmentation needed (RFC 1191). Also to senders that allow fragmentation:
            // nobody fragments here, and Linux heeds the message all the same.
            Outcome::PacketTooBig => [3, 4],
            // Time to live exceeded in transit.
            _ => [11, 0],
        }
    }

    #[inline(always)]
    fn pseudo_header(_: &Pair<Self::Address>, _: usize) -> u32 {
        0
    }

    #[inline(always)]
    fn mtu_word(mtu: u32) -> [u8; 4] {
        let [high, low] = (mtu as u16).to_be_bytes();
        [0, 0, high, low]
    }
}

impl ErrorFamily for V6 {
    #[inline(always)]
    fn message(outcome: Outcome) -> [u8; 2] {
        match outcome {
            Outcome::PacketTooBig => [2, 0],
            // Hop limit exceeded in transit.
            _ => [3, 0],
        }
    }

    #[inline(always)]
    fn pseudo_header(addresses: &Pair<Self::Address>, len: usize) -> u32 {
        // RFC 8200, section 8.1: addresses, length and next header, as 16-bit words in memory.
        addresses.sum()
            + u32::from((len as u16).to_be())
            + u32::from(u16::from(protocol::ICMPV6).to_be())
    }

    #[inline(always)]
    fn mtu_word(mtu: u32) -> [u8; 4] {
        mtu.to_be_bytes()
    }
}

global_fn! {
    /// Turns a packet that arrived on `side` into the error that tells its sender of `outcome`.
    ///
    /// # Errors
    ///
    /// The packet is to be dropped, and nobody is told.
    pub fn turn_into_error(packet: &Packet, side: Side, outcome: Outcome) -> Result<(), Outcome> = turn;
    send_icmp_error
}

#[inline(always)]
fn turn(packet: &Packet, side: Side, outcome: Outcome) -> Result<(), Outcome> {
    if packet.is_v6() {
        turn_family::<V6>(packet, side, outcome)
    } else {
        turn_family::<V4>(packet, side, outcome)
    }
}

#[inline(always)]
fn turn_family<F: ErrorFamily>(
    packet: &Packet,
    side: Side,
    outcome: Outcome,
) -> Result<(), Outcome> {
    let config = maps::config()?;
    let headers = parse::headers::<F>(packet)?;
    let NetworkHeader {
        protocol,
        payload_offset,
        payload_len,
        part,
        ..
    } = headers.network;
    // Nor of one about a fragment other than the first.
    if matches!(part, Part::Later) {
        return Err(outcome);
    }
    // Nobody is told of an error about an error (RFC 1122, section 3.2.2).
    if protocol == F::ICMP && !matches!(headers.kind(), PacketKind::Transport(_)) {
        return Err(outcome);
    }
    // Whole words of four bytes, for the checksum.
    let transport_len = (if payload_len < TRANSPORT_LEN {
        payload_len
    } else {
        TRANSPORT_LEN
    }) & !3;
    let inside_len = payload_offset - ETHERNET_HEADER_LEN + transport_len;
    if inside_len > INSIDE_LEN || !is_within_limit() {
        return Err(outcome);
    }
    let correction = device_checksum(packet, protocol, payload_offset, transport_len)?;
    let mtu = match outcome {
        Outcome::PacketTooBig => F::mtu_word(config.mtu(side.opposite())),
        _ => [0; 4],
    };
    let skb = packet.skb();
    // SAFETY: the context is valid while the program runs.
    let resized = unsafe {
        bpf_skb_change_tail(skb, (ETHERNET_HEADER_LEN + inside_len) as u32, 0) == 0
            && bpf_skb_adjust_room(
                skb,
                (F::HEADER_LEN + ICMP_HEADER_LEN) as i32,
                BPF_ADJ_ROOM_MAC,
                0,
            ) == 0
    };
    if !resized {
        return Err(Outcome::RewriteFailed);
    }
    packet.pull((ETHERNET_HEADER_LEN + F::HEADER_LEN + LONGEST) as u32);

    let message = ETHERNET_HEADER_LEN + F::HEADER_LEN;
    let inside = message + ICMP_HEADER_LEN;
    let received: Pair<F::Address> = packet
        .load(inside + F::ADDRESSES)
        .ok_or(Outcome::RewriteFailed)?;
    let addresses = received.swapped();
    let message_len = ICMP_HEADER_LEN + inside_len;
    F::store_header(packet, addresses, F::ICMP, F::HEADER_LEN + message_len)?;
    packet.store(message, F::message(outcome))?;
    packet.store(message + 2, 0_u16)?;
    packet.store(message + 4, mtu)?;
    let sum = F::pseudo_header(&addresses, message_len)
        + u32::from(sum(packet, message as u32, message_len as u32)?)
        + u32::from(correction);
    packet.store(message + 2, !checksum::fold(sum))
}

/// The longest error, from its ICMP header on.
const LONGEST: usize = ICMP_HEADER_LEN + INSIDE_LEN;

global_fn! {
    /// The sum of the 16-bit words from `offset` on, folded; `len` is a multiple of 4.
    fn sum(packet: &Packet, offset: u32, len: u32) -> Result<u16, Outcome> = sum_words;
    sum_packet
}

#[inline(always)]
fn sum_words(packet: &Packet, offset: u32, len: u32) -> Result<u16, Outcome> {
    // No offset is beyond that of the longest headers.
    let (offset, len) = (offset as usize & 0xff, len as usize);
    let mut sum = 0;
    for word in 0..LONGEST / 4 {
        if word * 4 >= len {
            break;
        }
        let word: u32 = packet
            .load(offset + word * 4)
            .ok_or(Outcome::RewriteFailed)?;
        sum += u64::from(word);
    }
    // Fewer than 2^16 words: half a word is enough for what they carry over.
    Ok(checksum::fold(
        (sum as u32 & 0xffff) + (sum as u32 >> 16) + (sum >> 32) as u32,
    ))
}

/// What the device will add to the packet when it completes a checksum that the sender left to it (`CHECKSUM_PARTIAL`):
/// inside an error it still will, and changes bytes that the error's own checksum covers.
#[inline(always)]
fn device_checksum(
    packet: &Packet,
    protocol: u8,
    transport: usize,
    transport_len: usize,
) -> Result<u16, Outcome> {
    if protocol != protocol::TCP && protocol != protocol::UDP {
        return Ok(0);
    }
    let offset = transport + TransportHeader::checksum_offset(protocol);
    let before: u16 = packet.load(offset).ok_or(Outcome::RewriteFailed)?;
    if before == 0 {
        return Ok(0);
    }
    // The helper leaves such a checksum alone when the packet's own bytes change, and that is how it is known.
    packet.update_checksum(protocol::TCP, offset, 1, ChecksumPart::Payload)?;
    let after: u16 = packet.load(offset).ok_or(Outcome::RewriteFailed)?;
    if after != before {
        packet.store(offset, before)?;
        return Ok(0);
    }
    let completed = !sum(packet, transport as u32, transport_len as u32)?;
    Ok(checksum::delta(u32::from(before), u32::from(completed)))
}
