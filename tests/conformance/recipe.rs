//! Packets before their addresses are known.
//!
//! A flow's NAT port may differ between the two labs. A script therefore describes a packet, and each lab builds its
//! own bytes from the description.

use std::net::{IpAddr, SocketAddr};

use crate::checksum;
use crate::family::Family;
use crate::layout::{set_word, word};
use crate::protocol::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING, SCTP, TCP, UDP};

/// The addresses and ports of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The sender. For an echo message, the identifier is the port of both ends.
    pub source: SocketAddr,
    /// The receiver.
    pub destination: SocketAddr,
}

impl Ends {
    /// The ends of an answer.
    pub const fn reversed(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
        }
    }
}

/// Differences from the flow's own ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Twist {
    /// Replaces the sender's address.
    pub source: Option<IpAddr>,
    /// Replaces the receiver's address.
    pub destination: Option<IpAddr>,
    /// Is added to the sender's port.
    pub source_port: u16,
    /// Is added to the receiver's port.
    pub destination_port: u16,
}

impl Twist {
    /// The largest number that scripts add to a port.
    pub const LARGEST_OFFSET: u16 = 3;

    fn apply(&self, ends: Ends) -> Ends {
        let end = |address: Option<IpAddr>, offset, end: SocketAddr| {
            SocketAddr::new(address.unwrap_or(end.ip()), end.port().wrapping_add(offset))
        };
        Ends {
            source: end(self.source, self.source_port, ends.source),
            destination: end(self.destination, self.destination_port, ends.destination),
        }
    }
}

/// A packet without its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// TTL or hop limit.
    pub ttl: u8,
    /// TOS or traffic class.
    pub tos: u8,
    /// The identification. For IPv6, only fragments have one.
    pub id: u16,
    /// IPv4's "don't fragment".
    pub df: bool,
    /// IPv4's options, a multiple of four bytes.
    pub options: Vec<u8>,
    /// IPv6's extension headers.
    pub extensions: Vec<Extension>,
    /// Differences from the flow's own ends.
    pub twist: Twist,
    pub body: Body,
    /// The packet's damage, applied in this order.
    pub damage: Vec<Damage>,
    /// The fragments into which the bytes after the IP header are cut. Empty if they are not cut.
    pub fragments: Vec<Piece>,
}

/// An extension header of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extension {
    /// Hop-by-hop options: padding.
    HopByHop,
    /// Destination options: padding.
    DestinationOptions,
    /// A routing header of type 4 with this many segments left.
    Routing(u8),
    /// The fragment header of an unfragmented packet (RFC 6946).
    AtomicFragment,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// A TCP segment.
    Tcp {
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
        /// The options, a multiple of four bytes.
        options: Vec<u8>,
        /// The number of data bytes.
        length: u16,
    },
    /// A UDP datagram.
    Udp {
        /// Whether it has a checksum.
        checksum: bool,
        payload: Vec<u8>,
    },
    /// An SCTP packet.
    Sctp {
        /// The verification tag.
        tag: u32,
        chunks: Vec<u8>,
    },
    /// An ICMP message with an identifier, like echo.
    Echo {
        /// Type and code.
        kind: [u8; 2],
        sequence: u16,
        /// The number of data bytes.
        length: u16,
    },
    /// An ICMP error.
    Error {
        /// Type and code.
        kind: [u8; 2],
        /// The four bytes before the quoted packet.
        rest: [u8; 4],
        /// The quoted packet. Its ends are the reverse of the message's.
        about: Box<Recipe>,
        /// The maximum length of the quotation.
        quoted: usize,
    },
    /// Anything else.
    Other {
        /// The protocol number.
        protocol: u8,
        /// The bytes after the IP header.
        bytes: Vec<u8>,
    },
}

/// One kind of damage to a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Adds this number to the IPv4 header checksum.
    HeaderChecksum(u16),
    /// Adds this number to the checksum after the IP header, whatever the protocol; for SCTP, flips these bits.
    Checksum(u16),
    /// Replaces the IP version.
    Version(u8),
    /// Replaces IPv4's header length, in words.
    HeaderLength(u8),
    /// Adds this number to the length in the IP header.
    Length(i16),
    /// Flips bits of one byte. The checksum after the IP header does not follow the change.
    Byte {
        /// The offset from the end of the IP header and its extension headers.
        at: usize,
        /// The bits to flip.
        mask: u8,
    },
    /// Ends the packet after this many bytes behind the IP header, and sets the IP header's length to match.
    ShortPacket(usize),
    /// Ends the packet after this many bytes.
    Truncation(usize),
    /// Appends this many bytes.
    Trailer(usize),
}

/// A fragment: the bytes from `start` to `end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The offset of the first byte, a multiple of eight.
    pub start: usize,
    /// The offset after the last byte.
    pub end: usize,
    /// Whether the fragment says that more follow.
    pub more: bool,
}

impl Recipe {
    /// A packet with nothing unusual around `body`.
    pub fn of(body: Body) -> Self {
        Self {
            ttl: 64,
            tos: 0,
            id: 0x1234,
            df: true,
            options: Vec::new(),
            extensions: Vec::new(),
            twist: Twist::default(),
            body,
            damage: Vec::new(),
            fragments: Vec::new(),
        }
    }

    /// Whether the checksums are right when the packet is sent.
    pub fn is_sound(&self) -> bool {
        // On a source route, the checksum is computed for the final destination.
        let is_on_its_way = |extension: &Extension| matches!(extension, Extension::Routing(1..));
        self.damage.is_empty()
            && !matches!(self.body, Body::Other { .. })
            && !self.extensions.iter().any(is_on_its_way)
    }

    /// The packets that the sending host emits.
    pub fn packets(&self, family: Family, ends: Ends) -> Vec<Vec<u8>> {
        if self.fragments.is_empty() {
            return vec![self.packet(family, ends)];
        }
        let ends = self.twist.apply(ends);
        let (protocol, mut body) = self.body(family, ends);
        for damage in &self.damage {
            damage.before_header(protocol, &mut body);
        }
        self.fragments
            .iter()
            .map(|piece| {
                let mut bytes = body.clone();
                bytes.resize(body.len().max(piece.end), 0);
                self.with_header(
                    family,
                    ends,
                    protocol,
                    &bytes[piece.start..piece.end],
                    Some(*piece),
                )
            })
            .collect()
    }

    /// The whole packet.
    pub fn packet(&self, family: Family, ends: Ends) -> Vec<u8> {
        let ends = self.twist.apply(ends);
        let (protocol, mut body) = self.body(family, ends);
        for damage in &self.damage {
            damage.before_header(protocol, &mut body);
        }
        let mut packet = self.with_header(family, ends, protocol, &body, None);
        let header_len = packet.len() - body.len();
        for damage in &self.damage {
            damage.after_header(family, header_len, &mut packet);
        }
        packet
    }

    fn body(&self, family: Family, ends: Ends) -> (u8, Vec<u8>) {
        self.body.bytes(family, ends)
    }

    fn with_header(
        &self,
        family: Family,
        ends: Ends,
        protocol: u8,
        body: &[u8],
        piece: Option<Piece>,
    ) -> Vec<u8> {
        match (family, ends.source.ip(), ends.destination.ip()) {
            (Family::V4, IpAddr::V4(source), IpAddr::V4(destination)) => {
                let addresses = [source.octets(), destination.octets()].concat();
                self.with_v4_header(&addresses, protocol, body, piece)
            }
            (Family::V6, IpAddr::V6(source), IpAddr::V6(destination)) => {
                let addresses = [source.octets(), destination.octets()].concat();
                self.with_v6_header(&addresses, protocol, body, piece)
            }
            _ => panic!("{ends:?} are not {family}"),
        }
    }

    fn with_v4_header(
        &self,
        addresses: &[u8],
        protocol: u8,
        body: &[u8],
        piece: Option<Piece>,
    ) -> Vec<u8> {
        const DF: u16 = 0x4000;
        const MF: u16 = 0x2000;
        // Later fragments carry only options with the copied flag (RFC 791), which none of these has.
        let is_later = piece.is_some_and(|piece| piece.start > 0);
        let options = if is_later { &[][..] } else { &self.options[..] };
        let header_len = 20 + options.len();
        let fragment = piece.map_or(if self.df { DF } else { 0 }, |piece| {
            offset(piece) | if piece.more { MF } else { 0 }
        });
        let mut packet = vec![0x40 | words(header_len), self.tos];
        packet.extend(length(header_len + body.len()));
        packet.extend(self.id.to_be_bytes());
        packet.extend(fragment.to_be_bytes());
        packet.extend([self.ttl, protocol, 0, 0]);
        packet.extend(addresses);
        packet.extend(options);
        let sum = checksum::internet(&packet);
        packet[10..12].copy_from_slice(&sum.to_be_bytes());
        packet.extend(body);
        packet
    }

    fn with_v6_header(
        &self,
        addresses: &[u8],
        protocol: u8,
        body: &[u8],
        piece: Option<Piece>,
    ) -> Vec<u8> {
        let mut headers: Vec<_> = self
            .extensions
            .iter()
            .map(|extension| extension.header())
            .collect();
        if let Some(piece) = piece {
            headers.push(self.fragment_header(offset(piece) << 3 | u16::from(piece.more)));
        }
        let mut extensions = Vec::new();
        let mut next = protocol;
        for (kind, header) in headers.into_iter().rev() {
            extensions.splice(..0, [&[next][..], &header].concat());
            next = kind;
        }
        let mut packet = vec![0x60 | self.tos >> 4, self.tos << 4, 0, 0];
        packet.extend(length(extensions.len() + body.len()));
        packet.extend([next, self.ttl]);
        packet.extend(addresses);
        packet.extend(extensions);
        packet.extend(body);
        packet
    }

    /// A fragment header without its next-header field.
    fn fragment_header(&self, offset_and_more: u16) -> (u8, Vec<u8>) {
        let mut header = vec![0];
        header.extend(offset_and_more.to_be_bytes());
        header.extend([0, 0]);
        header.extend(self.id.to_be_bytes());
        (FRAGMENT, header)
    }
}

impl Extension {
    /// The protocol number, and the header without its next-header field.
    fn header(self) -> (u8, Vec<u8>) {
        // PadN over the rest of eight bytes.
        const PADDING: [u8; 7] = [0, 1, 4, 0, 0, 0, 0];
        match self {
            Self::HopByHop => (HOP_BY_HOP, PADDING.to_vec()),
            Self::DestinationOptions => (DESTINATION_OPTIONS, PADDING.to_vec()),
            Self::Routing(left) => (ROUTING, vec![0, 4, left, 0, 0, 0, 0]),
            Self::AtomicFragment => (FRAGMENT, vec![0, 0, 0, 0, 0, 0x77, 0x77]),
        }
    }
}

fn offset(piece: Piece) -> u16 {
    u16::try_from(piece.start / 8).unwrap_or(u16::MAX) & 0x1fff
}

/// The number of 32-bit words in this many bytes.
fn words(bytes: usize) -> u8 {
    u8::try_from(bytes / 4).unwrap_or(u8::MAX)
}

fn length(bytes: usize) -> [u8; 2] {
    u16::try_from(bytes).unwrap_or(u16::MAX).to_be_bytes()
}

/// Data without repetition, so that misplaced bytes are detected.
pub fn data(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index * 7 + index / 256).to_le_bytes()[0])
        .collect()
}

impl Body {
    /// The protocol number, and the bytes after the IP header.
    fn bytes(&self, family: Family, ends: Ends) -> (u8, Vec<u8>) {
        let protocol = self.protocol(family);
        let ports = [
            ends.source.port().to_be_bytes(),
            ends.destination.port().to_be_bytes(),
        ]
        .concat();
        let bytes = match self {
            Self::Tcp {
                flags,
                seq,
                ack,
                window,
                options,
                length,
            } => {
                let mut bytes = ports;
                bytes.extend(seq.to_be_bytes());
                bytes.extend(ack.to_be_bytes());
                bytes.extend([words(20 + options.len()) << 4, *flags]);
                bytes.extend(window.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(options);
                bytes.extend(data(usize::from(*length)));
                bytes
            }
            Self::Udp { payload, .. } => {
                let mut bytes = ports;
                bytes.extend(length(8 + payload.len()));
                bytes.extend([0; 2]);
                bytes.extend(payload);
                bytes
            }
            Self::Sctp { tag, chunks } => {
                let mut bytes = ports;
                bytes.extend(tag.to_be_bytes());
                bytes.extend([0; 4]);
                bytes.extend(chunks);
                bytes
            }
            Self::Echo {
                kind,
                sequence,
                length,
            } => {
                let mut bytes = kind.to_vec();
                bytes.extend([0; 2]);
                bytes.extend(ends.source.port().to_be_bytes());
                bytes.extend(sequence.to_be_bytes());
                bytes.extend(data(usize::from(*length)));
                bytes
            }
            Self::Error {
                kind,
                rest,
                about,
                quoted,
            } => {
                let inside = about.packet(family, ends.reversed());
                let mut bytes = kind.to_vec();
                bytes.extend([0; 2]);
                bytes.extend(rest);
                bytes.extend(&inside[..inside.len().min(*quoted)]);
                bytes
            }
            Self::Other { bytes, .. } => bytes.clone(),
        };
        (protocol, self.with_checksum(ends, protocol, bytes))
    }

    fn with_checksum(&self, ends: Ends, protocol: u8, mut bytes: Vec<u8>) -> Vec<u8> {
        let internet =
            || checksum::transport(ends.source.ip(), ends.destination.ip(), protocol, &bytes);
        match self {
            Self::Udp {
                checksum: false, ..
            }
            | Self::Other { .. } => {}
            Self::Udp { .. } => {
                let sum = checksum::one_zero(internet());
                bytes[6..8].copy_from_slice(&sum.to_be_bytes());
            }
            Self::Tcp { .. } => {
                let sum = internet();
                bytes[16..18].copy_from_slice(&sum.to_be_bytes());
            }
            Self::Sctp { .. } => {
                let sum = checksum::sctp(&bytes);
                bytes[8..12].copy_from_slice(&sum);
            }
            Self::Echo { .. } | Self::Error { .. } => {
                let sum = internet();
                bytes[2..4].copy_from_slice(&sum.to_be_bytes());
            }
        }
        bytes
    }

    pub const fn protocol(&self, family: Family) -> u8 {
        match self {
            Self::Tcp { .. } => TCP,
            Self::Udp { .. } => UDP,
            Self::Sctp { .. } => SCTP,
            Self::Echo { .. } | Self::Error { .. } => family.icmp(),
            Self::Other { protocol, .. } => *protocol,
        }
    }
}

impl Damage {
    fn before_header(self, protocol: u8, body: &mut Vec<u8>) {
        match self {
            Self::Checksum(by) => {
                let at = match protocol {
                    TCP => 16,
                    UDP => 6,
                    SCTP => return xor(body, 8, by),
                    _ => 2,
                };
                if let Some(sum) = word(body, at) {
                    set_word(body, at, checksum::follow(sum, by, 0));
                }
            }
            Self::Byte { at, mask } => {
                if let Some(byte) = body.get_mut(at) {
                    *byte ^= mask;
                }
            }
            Self::ShortPacket(length) => body.truncate(length),
            _ => {}
        }
    }

    fn after_header(self, family: Family, header_len: usize, packet: &mut Vec<u8>) {
        match (self, family) {
            (Self::HeaderChecksum(by), Family::V4) => xor(packet, 10, by),
            (Self::Version(version), _) => packet[0] = packet[0] & 0x0f | version << 4,
            (Self::HeaderLength(words), Family::V4) => {
                packet[0] = packet[0] & 0xf0 | words;
                renew_header_checksum(packet, header_len);
            }
            (Self::Length(by), _) => {
                let at = if family == Family::V4 { 2 } else { 4 };
                let length = u16::from_be_bytes([packet[at], packet[at + 1]]);
                let length = length.saturating_add_signed(by);
                packet[at..at + 2].copy_from_slice(&length.to_be_bytes());
                if family == Family::V4 {
                    renew_header_checksum(packet, header_len);
                }
            }
            (Self::Truncation(length), _) => packet.truncate(length),
            (Self::Trailer(length), _) => packet.extend(data(length)),
            _ => {}
        }
    }
}

fn xor(bytes: &mut [u8], at: usize, by: u16) {
    for (byte, by) in bytes.iter_mut().skip(at).zip(by.to_be_bytes()) {
        *byte ^= by;
    }
}

fn renew_header_checksum(packet: &mut [u8], header_len: usize) {
    packet[10..12].fill(0);
    let stated = usize::from(packet[0] & 0x0f) * 4;
    let covered = if stated < 20 { header_len } else { stated };
    let sum = checksum::internet(&packet[..covered.min(packet.len())]);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonical::is_intact;
    use crate::generate;
    use crate::script::Slot;

    #[test]
    fn packets_that_are_meant_to_be_sound_have_right_checksums_and_damaged_ones_mostly_not() {
        let mut damaged = 0;
        for family in Family::ALL {
            for number in 0..500 {
                let script = generate::script(1, number, family);
                for event in &script.events {
                    let (packets, _) = event.packets(&script, Slot(9), 2_000);
                    let are_intact = packets.iter().all(|packet| is_intact(packet));
                    assert!(are_intact || !event.recipe.is_sound(), "{event}");
                    damaged += u32::from(!are_intact);
                }
            }
        }
        assert!(damaged > 100, "{damaged}");
    }
}
