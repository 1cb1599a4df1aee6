//! ICMP errors of the router's own, each made from the packet that it is about.
//!
//! The packet is cut after the beginning of its transport header, gets new IP and ICMP headers, and leaves through the
//! interface on which it arrived. The error's source is the address that the packet was sent to, which is the router's
//! own.

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

/// The length of the inner packet's transport header: at least 8 bytes (RFC 792). With 20, it contains the checksum,
/// which the kernel requires as long as the checksum is left to the device.
const TRANSPORT_LEN: usize = 20;

/// The maximum length of the inner packet, in bytes.
const INNER_LEN: usize = 128;

/// The differences between ICMP and ICMPv6.
trait ErrorFamily: KernelFamily {
    /// The type and code of the error for an outcome.
    fn message(outcome: Outcome) -> [u8; 2];

    /// The sum of the pseudo header, which the checksum covers besides the message.
    fn pseudo_header(addresses: &Pair<Self::Address>, len: usize) -> u32;

    /// The message's second word, for an outgoing interface with this MTU.
    fn mtu_word(mtu: u32) -> [u8; 4];
}

impl ErrorFamily for V4 {
    #[inline(always)]
    fn message(outcome: Outcome) -> [u8; 2] {
        match outcome {
            // Destination unreachable: fragmentation needed (RFC 1191). Senders that allow fragmentation get it, too:
            // the router does not fragment, and Linux heeds the message anyway.
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
    /// Turns a packet that arrived on `side` into the error that tells its sender about `outcome`.
    ///
    /// # Errors
    ///
    /// The packet must be dropped without an answer.
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
    // A later fragment causes no error (RFC 1122, section 3.2.2).
    if matches!(part, Part::Later) {
        return Err(outcome);
    }
    // Nor does an ICMP error, or any other ICMP message but echo.
    if protocol == F::ICMP && !matches!(headers.kind(), PacketKind::Transport(_)) {
        return Err(outcome);
    }
    // A multiple of 4, for the checksum.
    let transport_len = (if payload_len < TRANSPORT_LEN {
        payload_len
    } else {
        TRANSPORT_LEN
    }) & !3;
    let inner_len = payload_offset - ETHERNET_HEADER_LEN + transport_len;
    if inner_len > INNER_LEN || !is_within_limit() {
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
        bpf_skb_change_tail(skb, (ETHERNET_HEADER_LEN + inner_len) as u32, 0) == 0
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
    let inner = message + ICMP_HEADER_LEN;
    let received: Pair<F::Address> = packet
        .load(inner + F::ADDRESSES)
        .ok_or(Outcome::RewriteFailed)?;
    let addresses = received.swapped();
    let message_len = ICMP_HEADER_LEN + inner_len;
    F::store_header(packet, addresses, F::ICMP, F::HEADER_LEN + message_len)?;
    packet.store(message, F::message(outcome))?;
    packet.store(message + 2, 0_u16)?;
    packet.store(message + 4, mtu)?;
    let sum = F::pseudo_header(&addresses, message_len)
        + u32::from(sum(packet, message as u32, message_len as u32)?)
        + u32::from(correction);
    packet.store(message + 2, !checksum::fold(sum))
}

/// The maximum length of an error, from its ICMP header on.
const LONGEST: usize = ICMP_HEADER_LEN + INNER_LEN;

global_fn! {
    /// The folded sum of the 16-bit words from `offset` on; `len` is a multiple of 4.
    fn sum(packet: &Packet, offset: u32, len: u32) -> Result<u16, Outcome> = sum_words;
    sum_packet
}

#[inline(always)]
fn sum_words(packet: &Packet, offset: u32, len: u32) -> Result<u16, Outcome> {
    // No offset exceeds that of the longest headers. The mask tells the verifier.
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
    // There are fewer than 2^16 words, so that the carries fit into 16 bits.
    Ok(checksum::fold(
        (sum as u32 & 0xffff) + (sum as u32 >> 16) + (sum >> 32) as u32,
    ))
}

/// The delta by which the device will change the packet when it completes a checksum that the sender left to it
/// (`CHECKSUM_PARTIAL`). It still does so inside an error, and changes bytes that the error's own checksum covers.
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
    // The helper does not change such a checksum for bytes of the packet itself, which reveals it.
    packet.update_checksum(protocol::TCP, offset, 1, ChecksumPart::Payload)?;
    let after: u16 = packet.load(offset).ok_or(Outcome::RewriteFailed)?;
    if after != before {
        packet.store(offset, before)?;
        return Ok(0);
    }
    let completed = !sum(packet, transport as u32, transport_len as u32)?;
    Ok(checksum::delta(u32::from(before), u32::from(completed)))
}
