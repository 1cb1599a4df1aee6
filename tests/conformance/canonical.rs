//! Removes from packets what may differ between the labs: NAT ports, and identifications chosen by the router itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::checksum;
use crate::family::Family;
use crate::layout::{Layout, set_word, word};
use crate::protocol::{ICMP, ICMPV6, SCTP, TCP, UDP};
use crate::recipe::Twist;
use crate::wire::{Output, Side};

/// The values that differ between labs.
#[derive(Clone, Copy, Debug)]
pub struct Chosen {
    /// The flow's NAT port in this lab.
    pub nat_port: u16,
    /// The number that replaces it.
    pub stands_for: u16,
    /// The identification of the packets that were sent.
    pub sent_id: u16,
}

/// The packets that left a lab, as if both labs had chosen the same numbers.
pub fn canonical(outputs: Vec<Output>, chosen: Chosen) -> Vec<Output> {
    let mut outputs: Vec<_> = outputs
        .into_iter()
        .map(|mut output| {
            if output.side == Side::Outside && chosen.nat_port != chosen.stands_for {
                replace_port(&mut output.packet, chosen);
            }
            output
        })
        .collect();
    reassemble(&mut outputs);
    for output in &mut outputs {
        hide_own_id(&mut output.packet, chosen.sent_id);
        unify_zero(&mut output.packet);
    }
    outputs
}

/// The source and destination address of a packet with a whole IP header.
pub fn addresses(packet: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| Some(Ipv4Addr::from(*packet.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(Ipv6Addr::from(*packet.get(at..)?.first_chunk::<16>()?));
    Some(match Layout::of(packet)?.family {
        Family::V4 => (v4(12)?.into(), v4(16)?.into()),
        Family::V6 => (v6(8)?.into(), v6(24)?.into()),
    })
}

/// The offset of the number that, with the addresses, identifies a flow: a port, or the identifier of an echo message.
fn port_at(layout: &Layout, kind: u8, of_source: bool) -> Option<usize> {
    if layout.is_later_fragment() {
        return None;
    }
    match layout.protocol {
        TCP | UDP | SCTP => Some(layout.payload + if of_source { 0 } else { 2 }),
        ICMP | ICMPV6 if !layout.is_error(kind) => Some(layout.payload + 4),
        _ => None,
    }
}

/// The source and destination port of a packet. For ICMP, the identifier twice.
pub fn ports(packet: &[u8]) -> Option<(u16, u16)> {
    let layout = Layout::of(packet)?;
    let kind = *packet.get(layout.payload)?;
    let port = |of_source| word(packet, port_at(&layout, kind, of_source)?);
    Some((port(true)?, port(false)?))
}

fn replace_port(packet: &mut [u8], chosen: Chosen) {
    let Some(layout) = Layout::of(packet) else {
        return;
    };
    let Some(&kind) = packet.get(layout.payload) else {
        return;
    };
    if layout.is_error(kind) {
        let inner = layout.payload + 8;
        let off = message_residue(packet, &layout);
        if inner < packet.len() {
            replace_one_port(&mut packet[inner..], false, chosen);
        }
        if let Some(off) = off {
            set_message_residue(packet, &layout, off);
        }
    } else {
        replace_one_port(packet, true, chosen);
    }
}

/// Replaces the NAT port as the source or the destination port.
fn replace_one_port(packet: &mut [u8], of_source: bool, chosen: Chosen) {
    let Some(layout) = Layout::of(packet) else {
        return;
    };
    let kind = packet.get(layout.payload).copied().unwrap_or_default();
    let Some(at) = port_at(&layout, kind, of_source) else {
        return;
    };
    let Some(old) = word(packet, at) else {
        return;
    };
    // Scripts also use the next few ports.
    let offset = old.wrapping_sub(chosen.nat_port);
    if offset > Twist::LARGEST_OFFSET {
        return;
    }
    let new = chosen.stands_for.wrapping_add(offset);
    let payload = layout.payload;
    let crc = (layout.protocol == SCTP)
        .then(|| crc_residue(&packet[payload..]))
        .flatten();
    set_word(packet, at, new);
    let sum_at = payload
        + match layout.protocol {
            TCP => 16,
            UDP => 6,
            SCTP => {
                if let Some(residue) = crc {
                    set_crc_residue(&mut packet[payload..], residue);
                }
                return;
            }
            _ => 2,
        };
    match word(packet, sum_at) {
        Some(0) if layout.protocol == UDP => {}
        Some(sum) => {
            let sum = checksum::follow(sum, old, new);
            set_word(packet, sum_at, sum);
        }
        None => {}
    }
}

/// The error of an ICMP message's checksum.
fn message_residue(packet: &[u8], layout: &Layout) -> Option<u16> {
    let (found, right) = message_checksum(packet, layout)?;
    Some(checksum::follow(found, 0, right))
}

fn set_message_residue(packet: &mut [u8], layout: &Layout, residue: u16) {
    if let Some((_, right)) = message_checksum(packet, layout) {
        let sum = checksum::follow(residue, right, 0);
        set_word(packet, layout.payload + 2, sum);
    }
}

/// The checksum of an ICMP message, and the correct one.
fn message_checksum(packet: &[u8], layout: &Layout) -> Option<(u16, u16)> {
    let (source, destination) = addresses(packet)?;
    let found = word(packet, layout.payload + 2)?;
    let mut message = packet[layout.payload..].to_vec();
    set_word(&mut message, 2, 0);
    let right = checksum::transport(source, destination, layout.protocol, &message);
    Some((found, right))
}

/// The exclusive or of an SCTP packet's CRC and the correct one. `None` without a whole header.
pub fn crc_residue(packet: &[u8]) -> Option<[u8; 4]> {
    let found: [u8; 4] = *packet.get(8..)?.first_chunk()?;
    let right = right_crc(packet);
    Some(std::array::from_fn(|index| found[index] ^ right[index]))
}

fn is_sctp_intact(packet: &[u8]) -> bool {
    crc_residue(packet) == Some([0; 4])
}

fn set_crc_residue(packet: &mut [u8], residue: [u8; 4]) {
    let right = right_crc(packet);
    for (index, byte) in packet[8..12].iter_mut().enumerate() {
        *byte = right[index] ^ residue[index];
    }
}

fn right_crc(packet: &[u8]) -> [u8; 4] {
    let mut packet = packet.to_vec();
    packet[8..12].fill(0);
    checksum::sctp(&packet)
}

/// Whether all checksums of a packet are right. Ignores the packet quoted by an ICMP error.
pub fn is_intact(packet: &[u8]) -> bool {
    let Some(layout) = Layout::of(packet) else {
        return false;
    };
    let is_header_right = match layout.family {
        Family::V4 => matches!(checksum::internet(&packet[..layout.payload]), 0 | 0xffff),
        Family::V6 => true,
    };
    is_header_right && is_transport_intact(packet, &layout)
}

fn is_transport_intact(packet: &[u8], layout: &Layout) -> bool {
    let Some((source, destination)) = addresses(packet) else {
        return false;
    };
    let body = &packet[layout.payload..];
    if layout.fragment.is_some() {
        return true;
    }
    match layout.protocol {
        UDP if word(body, 6) == Some(0) => true,
        TCP | UDP | ICMP | ICMPV6 => {
            let sum = checksum::transport(source, destination, layout.protocol, body);
            matches!(sum, 0 | 0xffff)
        }
        SCTP => is_sctp_intact(body),
        _ => true,
    }
}

/// Clears an IPv4 identification that the router has chosen, as for its own packets.
fn hide_own_id(packet: &mut [u8], sent: u16) {
    let is_v4 = packet.len() >= 20 && packet[0] >> 4 == 4;
    if let Some(id) = word(packet, 4).filter(|id| is_v4 && *id != sent) {
        let sum = word(packet, 10).unwrap_or_default();
        set_word(packet, 4, 0);
        set_word(packet, 10, checksum::follow(sum, id, 0));
    }
}

/// Unifies the checksums 0 and 0xffff, which represent the same number. In UDP, 0 means no checksum.
fn unify_zero(packet: &mut [u8]) {
    let Some(layout) = Layout::of(packet).filter(|layout| !layout.is_later_fragment()) else {
        return;
    };
    let at = match layout.protocol {
        TCP => 16,
        ICMP | ICMPV6 => 2,
        _ => return,
    };
    if let Some(sum) = word(packet, layout.payload + at) {
        set_word(packet, layout.payload + at, checksum::one_zero(sum));
    }
}

/// Reassembles packets whose fragments are all there.
fn reassemble(outputs: &mut Vec<Output>) {
    let mut index = 0;
    while index < outputs.len() {
        if let Some((whole, members)) = reassembled(outputs, index) {
            outputs[index].packet = whole;
            for member in members.into_iter().rev().filter(|member| *member != index) {
                outputs.remove(member);
            }
        }
        index += 1;
    }
}

/// The packet to which the fragment at `index` belongs, and the indices of all its fragments.
fn reassembled(outputs: &[Output], index: usize) -> Option<(Vec<u8>, Vec<usize>)> {
    let id = Layout::of(&outputs[index].packet)?.fragment?.id;
    let ends = addresses(&outputs[index].packet)?;
    let side = outputs[index].side;
    let mut pieces: Vec<_> = outputs
        .iter()
        .enumerate()
        .filter_map(|(index, output)| {
            let layout = Layout::of(&output.packet)?;
            let fragment = layout.fragment?;
            let is_member =
                output.side == side && fragment.id == id && addresses(&output.packet) == Some(ends);
            is_member.then(|| (fragment, &output.packet[payload_of(&layout)..], index))
        })
        .collect();
    pieces.sort_by_key(|(fragment, ..)| fragment.offset);
    let members = {
        let mut members: Vec<_> = pieces.iter().map(|(.., index)| *index).collect();
        members.sort_unstable();
        members
    };
    pieces.dedup_by_key(|(fragment, bytes, _)| (fragment.offset, bytes.len()));
    let mut body = Vec::new();
    for (fragment, bytes, _) in &pieces {
        if fragment.offset != body.len() {
            return None;
        }
        body.extend_from_slice(bytes);
    }
    let (first, last) = (pieces.first()?, pieces.last()?);
    if last.0.more {
        return None;
    }
    Some((whole(&outputs[first.2].packet, &body)?, members))
}

/// The offset of the fragment's data.
fn payload_of(layout: &Layout) -> usize {
    match layout.fragment.and_then(|fragment| fragment.header) {
        Some((at, _)) => at + 8,
        None => layout.payload,
    }
}

/// A packet with the first fragment's header and this payload.
fn whole(first: &[u8], body: &[u8]) -> Option<Vec<u8>> {
    let layout = Layout::of(first)?;
    let fragment = layout.fragment?;
    let mut packet = first.to_vec();
    if let Some((at, named_at)) = fragment.header {
        packet[named_at] = first[at];
        packet.truncate(at);
        packet.extend(body);
        let length = u16::try_from(packet.len() - 40).ok()?;
        set_word(&mut packet, 4, length);
        return Some(packet);
    }
    packet.truncate(layout.payload);
    packet.extend(body);
    let length = u16::try_from(packet.len()).ok()?;
    for (at, value) in [(2, length), (6, 0)] {
        let sum = word(&packet, 10)?;
        let sum = checksum::follow(sum, word(&packet, at)?, value);
        set_word(&mut packet, at, value);
        set_word(&mut packet, 10, sum);
    }
    Some(packet)
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::recipe::{Body, Ends, Piece, Recipe};

    const PORT: u16 = 5_000;

    fn ends(family: Family, nat_port: u16) -> Ends {
        let network = family.network();
        Ends {
            source: SocketAddr::new(network.router_net1.address, nat_port),
            destination: network.datagram().server(),
        }
    }

    fn bodies() -> Vec<Body> {
        let udp = Body::Udp {
            checksum: true,
            payload: vec![7; 41],
        };
        let tcp = Body::Tcp {
            flags: 0x10,
            seq: 1,
            ack: 2,
            window: 3,
            options: Vec::new(),
            length: 33,
        };
        let sctp = Body::Sctp {
            tag: 9,
            chunks: vec![
                0, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
            ],
        };
        let error = |about: &Body, quoted| Body::Error {
            kind: [3, 1],
            rest: [0; 4],
            about: Box::new(Recipe::of(about.clone())),
            quoted,
        };
        let errors = [
            error(&udp, 1_000),
            error(&udp, 48),
            error(&tcp, 1_000),
            error(&sctp, 1_000),
        ];
        [vec![udp, tcp, sctp], errors.to_vec()].concat()
    }

    fn seen(packets: Vec<Vec<u8>>, nat_port: u16) -> Vec<Output> {
        let output = |packet| Output {
            side: Side::Outside,
            packet,
        };
        let chosen = Chosen {
            nat_port,
            stands_for: PORT,
            sent_id: 0x1234,
        };
        canonical(packets.into_iter().map(output).collect(), chosen)
    }

    #[test]
    fn packets_that_differ_in_the_nat_port_only_become_the_same() {
        for family in Family::ALL {
            for body in bodies() {
                let recipe = Recipe::of(body);
                let of = |port| seen(recipe.packets(family, ends(family, port)), port);
                assert_eq!(of(40_001), of(PORT), "{recipe}");
            }
        }
    }

    #[test]
    fn another_port_or_a_wrong_checksum_is_still_seen() {
        let recipe = Recipe::of(bodies().swap_remove(0));
        let mut packets = recipe.packets(Family::V4, ends(Family::V4, 40_001));
        let right = seen(packets.clone(), 40_001);
        assert_ne!(seen(packets.clone(), 40_010), right);
        packets[0][26] ^= 1;
        assert_ne!(seen(packets, 40_001), right);
    }

    #[test]
    fn fragments_in_any_order_become_the_packet_that_they_were() {
        for family in Family::ALL {
            let mut recipe = Recipe::of(Body::Udp {
                checksum: true,
                payload: vec![3; 92],
            });
            recipe.df = false;
            let whole = seen(recipe.packets(family, ends(family, PORT)), PORT);
            let piece = |start, end| Piece {
                start,
                end,
                more: end < 100,
            };
            recipe.fragments = vec![piece(40, 100), piece(0, 40)];
            let fragments = seen(recipe.packets(family, ends(family, PORT)), PORT);
            assert_eq!(fragments, whole);
            recipe.fragments.truncate(1);
            assert_ne!(
                seen(recipe.packets(family, ends(family, PORT)), PORT),
                whole
            );
        }
    }
}
