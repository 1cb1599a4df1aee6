//! Telling the sender of a packet that it was dropped, by an ICMP error made out of the packet itself.
//!
//! The packet is cut behind its transport header, gets an IP and an ICMP header in front, and leaves by the interface that
//! it came from. The error comes from the address that the packet was sent to, which is the router's own.

use aya_ebpf::{
    bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    helpers::{bpf_skb_adjust_room, bpf_skb_change_tail},
};
use egress_common::{
    Bytes as _, ETHERNET_HEADER_LEN, Family, ICMP_HEADER_LEN, Ipv4Header, Ipv6Header,
    NetworkHeader, Outcome, Pair, Part, Side, TransportHeader, V4, V6, checksum, protocol,
};

use crate::{
    clock,
    family::Pipeline,
    maps,
    packet::{ChecksumPart, Packet},
    rare,
};

/// How much of the transport header goes with an error. At least 8 bytes (RFC 792); with 20 the checksum is among them,
/// which the kernel insists on while it is left to the device.
const TRANSPORT_LEN: usize = 20;

/// The longest part of a packet that goes with an error, in bytes.
const INSIDE_LEN: usize = 128;

/// Errors that a CPU sends in a tenth of a second at most. They go to those who use the router, but need not be many.
const ERRORS: u32 = 100;
const INTERVAL_NS: u64 = 100_000_000;

/// How many errors a CPU has sent: the value of `ERROR_LIMIT`.
#[repr(C)]
pub struct ErrorLimit {
    since_ns: u64,
    sent: u32,
    padding: u32,
}

/// What the family does in its own way.
pub trait Errors: Family {
    /// Type and code of the error for an outcome.
    fn message(outcome: Outcome) -> [u8; 2];

    /// Writes the IP header of a packet of the router's own, `len` bytes long from there on.
    fn store_header(
        packet: &Packet,
        addresses: Pair<Self::Address>,
        protocol: u8,
        len: usize,
    ) -> Result<(), Outcome>;

    /// The sum of what the checksum covers beside the message: the pseudo header.
    fn pseudo_header(addresses: &Pair<Self::Address>, len: usize) -> u32;

    /// The message's second word, for a way out that carries packets of `mtu` bytes.
    fn mtu_word(mtu: u32) -> [u8; 4];
}

impl Errors for V4 {
    #[inline(always)]
    fn message(outcome: Outcome) -> [u8; 2] {
        match outcome {
            // Destination unreachable: fragmentation needed (RFC 1191). Also to senders that allow fragmentation: nobody
            // fragments here, and Linux heeds the message all the same.
            Outcome::PacketTooBig => [3, 4],
            // Time to live exceeded in transit.
            _ => [11, 0],
        }
    }

    #[inline(always)]
    fn store_header(
        packet: &Packet,
        addresses: Pair<Self::Address>,
        protocol: u8,
        len: usize,
    ) -> Result<(), Outcome> {
        let mut header = Ipv4Header {
            version_ihl: 0x45,
            // Internetwork control, as Linux sends its errors (RFC 1812, section 4.3.2.5).
            tos: if protocol == protocol::ICMP { 0xc0 } else { 0 },
            total_length: (len as u16).to_be_bytes(),
            id: [0; 2],
            fragment: [0; 2],
            ttl_protocol: [64, protocol],
            checksum: 0,
            addresses,
        };
        let words: [u16; 10] = bytemuck::cast(header);
        header.checksum = !checksum::fold(words.iter().map(|word| u32::from(*word)).sum());
        packet.store(ETHERNET_HEADER_LEN, header)
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

impl Errors for V6 {
    #[inline(always)]
    fn message(outcome: Outcome) -> [u8; 2] {
        match outcome {
            Outcome::PacketTooBig => [2, 0],
            // Hop limit exceeded in transit.
            _ => [3, 0],
        }
    }

    #[inline(always)]
    fn store_header(
        packet: &Packet,
        addresses: Pair<Self::Address>,
        protocol: u8,
        len: usize,
    ) -> Result<(), Outcome> {
        packet.store(
            ETHERNET_HEADER_LEN,
            Ipv6Header {
                version_class_flow: [0x60, 0, 0, 0],
                payload_length: ((len - Self::HEADER_LEN) as u16).to_be_bytes(),
                next_header: protocol,
                hop_limit: 64,
                addresses,
            },
        )
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

/// Makes of a packet that arrived on `side` the error that tells its sender of `outcome`. On failure the packet is to be
/// dropped.
#[inline(always)]
pub fn reject<F: Pipeline>(packet: &Packet, side: Side, outcome: Outcome) -> Result<(), Outcome> {
    let config = maps::CONFIG.get(0).ok_or(Outcome::NotConfigured)?;
    let NetworkHeader {
        protocol,
        payload_offset,
        payload_len,
        part,
        ..
    } = packet.headers::<F>()?.network;
    // Nor of one about a fragment other than the first.
    if matches!(part, Part::Later) {
        return Err(outcome);
    }
    // Nobody is told of an error about an error (RFC 1122, section 3.2.2).
    if protocol == F::ICMP && packet.headers::<F>()?.transport.is_err() {
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
        + u32::from(rare::sum(packet, message, message_len)?)
        + u32::from(correction);
    packet.store(message + 2, !checksum::fold(sum))
}

/// Whether this CPU may send another error.
#[inline(always)]
pub fn is_within_limit() -> bool {
    let Some(limit) = maps::ERROR_LIMIT.get_ptr_mut(0) else {
        return false;
    };
    let now_ns = clock::now_ns();
    // SAFETY: the element is this CPU's own.
    unsafe {
        if now_ns.wrapping_sub((*limit).since_ns) > INTERVAL_NS {
            (*limit).since_ns = now_ns;
            (*limit).sent = 0;
        }
        (*limit).sent += 1;
        (*limit).sent <= ERRORS
    }
}

/// The longest error, from its ICMP header on.
const LONGEST: usize = ICMP_HEADER_LEN + INSIDE_LEN;

/// The sum of the 16-bit words from `offset` on, folded; `len` is a multiple of 4.
#[inline(always)]
pub fn sum(packet: &Packet, offset: usize, len: usize) -> Result<u16, Outcome> {
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
    let completed = !rare::sum(packet, transport, transport_len)?;
    Ok(checksum::delta(u32::from(before), u32::from(completed)))
}
