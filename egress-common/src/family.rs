//! One trait for IPv4 and IPv6, so that the pipeline is written once.

use core::mem::offset_of;

use crate::{
    extension::{self, Frame, Place},
    fragment::{Fragment, Part},
    icmp,
    ip::{ETHERNET_HEADER_LEN, Ipv4Header, Ipv6Header, NetworkHeader},
    network::{Address, Ipv4Address, Ipv6Address, protocol},
    outcome::Outcome,
};

/// An address family.
pub trait Family: 'static {
    /// The address type.
    type Address: Address;

    /// `true` for IPv6.
    const IS_V6: bool;

    /// The protocol number of ICMP or ICMPv6.
    const ICMP: u8;

    /// Length of the IP header without options or extensions.
    const HEADER_LEN: usize;

    /// The offset of the addresses in the IP header.
    const ADDRESSES: usize;

    /// The kind of an ICMP message with this type.
    fn icmp_kind(message_type: u8) -> icmp::Kind;

    /// Returns `true` if neighbour discovery depends on packets to this address, which no interface has.
    fn is_for_neighbours(address: Self::Address) -> bool;

    /// Reads the fragment fields of the IP header at the start of a frame.
    ///
    /// # Errors
    ///
    /// [`Outcome::Malformed`] if an IPv6 packet has no fragment header, otherwise as [`Self::network_header`].
    fn fragment(packet: &(impl Frame + ?Sized)) -> Result<Fragment, Outcome>;

    /// Reads the IP header at `offset`. The frame may be shorter than the header says; see [`NetworkHeader::complete`].
    ///
    /// # Errors
    ///
    /// [`Outcome::Truncated`] if the frame ends too early, [`Outcome::Malformed`] if the header contradicts itself.
    fn network_header(
        packet: &(impl Frame + ?Sized),
        offset: usize,
    ) -> Result<NetworkHeader<Self::Address>, Outcome>;
}

/// IPv4 (RFC 791).
#[derive(Clone, Copy, Debug)]
pub struct V4;

/// IPv6 (RFC 8200).
#[derive(Clone, Copy, Debug)]
pub struct V6;

/// Reads the IPv6 fragment header at `offset` (RFC 8200, section 4.5).
#[inline(always)]
fn fragment_header(packet: &(impl Frame + ?Sized), offset: usize) -> Result<Fragment, Outcome> {
    let [_, _, high, low, id @ ..]: [u8; 8] = packet.load(offset).ok_or(Outcome::Truncated)?;
    let field = u16::from_be_bytes([high, low]);
    Ok(Fragment {
        id: u32::from_ne_bytes(id),
        offset: field & !7,
        more: field & 1 != 0,
    })
}

/// The length in the header, or `received` for a segmentation-offload packet above 64 KiB ("BIG TCP"), whose 16-bit
/// length field is 0.
#[inline(always)]
fn announced_len(length: [u8; 2], received: usize) -> usize {
    match u16::from_be_bytes(length) {
        0 if received > u16::MAX as usize => received,
        length => length as usize,
    }
}

impl Family for V4 {
    type Address = Ipv4Address;

    const IS_V6: bool = false;
    const ICMP: u8 = protocol::ICMP;
    const HEADER_LEN: usize = size_of::<Ipv4Header>();
    const ADDRESSES: usize = offset_of!(Ipv4Header, addresses);

    #[inline(always)]
    fn icmp_kind(message_type: u8) -> icmp::Kind {
        icmp::Kind::of_v4(message_type)
    }

    #[inline(always)]
    fn is_for_neighbours(_: Ipv4Address) -> bool {
        // ARP does not use IPv4.
        false
    }

    #[inline(always)]
    fn fragment(packet: &(impl Frame + ?Sized)) -> Result<Fragment, Outcome> {
        let header: Ipv4Header = packet.load(ETHERNET_HEADER_LEN).ok_or(Outcome::Truncated)?;
        Ok(header.fragment())
    }

    #[inline(always)]
    fn network_header(
        packet: &(impl Frame + ?Sized),
        offset: usize,
    ) -> Result<NetworkHeader<Ipv4Address>, Outcome> {
        let header: Ipv4Header = packet.load(offset).ok_or(Outcome::Truncated)?;
        let header_len = header.header_len().ok_or(Outcome::Malformed)?;
        let total_len = announced_len(header.total_length, packet.len() - offset);
        if total_len < header_len {
            return Err(Outcome::Malformed);
        }
        let [ttl, protocol] = header.ttl_protocol;
        Ok(NetworkHeader {
            addresses: header.addresses,
            protocol,
            ttl,
            part: header.fragment().part(),
            payload_offset: offset + header_len,
            payload_len: total_len - header_len,
        })
    }
}

impl Family for V6 {
    type Address = Ipv6Address;

    const IS_V6: bool = true;
    const ICMP: u8 = protocol::ICMPV6;
    const HEADER_LEN: usize = size_of::<Ipv6Header>();
    const ADDRESSES: usize = offset_of!(Ipv6Header, addresses);

    #[inline(always)]
    fn icmp_kind(message_type: u8) -> icmp::Kind {
        icmp::Kind::of_v6(message_type)
    }

    #[inline(always)]
    fn is_for_neighbours(address: Ipv6Address) -> bool {
        // Multicast: Linux accepts only the groups that the interface has joined (RFC 4861, section 7.2.1).
        address.octets[0] == 0xff
    }

    #[inline(always)]
    fn fragment(packet: &(impl Frame + ?Sized)) -> Result<Fragment, Outcome> {
        let header: Ipv6Header = packet.load(ETHERNET_HEADER_LEN).ok_or(Outcome::Truncated)?;
        let start = Place {
            protocol: header.next_header,
            fragment: 0,
            offset: ETHERNET_HEADER_LEN + Self::HEADER_LEN,
        };
        match packet.skip_extensions(start)?.fragment {
            0 => Err(Outcome::Malformed),
            fragment => fragment_header(packet, fragment),
        }
    }

    #[inline(always)]
    fn network_header(
        packet: &(impl Frame + ?Sized),
        offset: usize,
    ) -> Result<NetworkHeader<Ipv6Address>, Outcome> {
        let header: Ipv6Header = packet.load(offset).ok_or(Outcome::Truncated)?;
        if header.version_class_flow[0] >> 4 != 6 {
            return Err(Outcome::Malformed);
        }
        let start = Place {
            protocol: header.next_header,
            fragment: 0,
            offset: offset + Self::HEADER_LEN,
        };
        let payload_len = announced_len(header.payload_length, packet.len() - start.offset);
        let payload = if extension::is_extension_header(start.protocol) {
            packet.skip_extensions(start)?
        } else {
            start
        };
        Ok(NetworkHeader {
            addresses: header.addresses,
            protocol: payload.protocol,
            ttl: header.hop_limit,
            part: match payload.fragment {
                0 => Part::Whole,
                fragment => fragment_header(packet, fragment)?.part(),
            },
            payload_offset: payload.offset,
            payload_len: payload_len
                .checked_sub(payload.offset - start.offset)
                .ok_or(Outcome::Malformed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;
    use std::{vec, vec::Vec};

    use super::*;
    use crate::{
        network::Port,
        packet::{PacketKind, TransportHeader},
        tcp::Flags,
    };

    /// A TCP SYN from port 1000 to port 2000.
    const TCP: [u8; 20] = [
        0x03,
        0xe8,
        0x07,
        0xd0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0x50,
        Flags::SYN,
        0,
        0,
        0,
        0,
        0,
        0,
    ];

    /// Ethernet, IPv4 with `options` words of options, TCP.
    fn frame(options: usize) -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + options * 4];
        let total = frame.len() - 14 + TCP.len();
        frame[14] = 0x45 + u8::try_from(options).unwrap();
        frame[16..18].copy_from_slice(&u16::try_from(total).unwrap().to_be_bytes());
        frame[22] = 64;
        frame[23] = protocol::TCP;
        frame[26..30].copy_from_slice(&[10, 128, 0, 2]);
        frame[30..34].copy_from_slice(&[10, 128, 0, 100]);
        frame.extend(TCP);
        frame
    }

    /// Ethernet, IPv6 with these extension headers (protocol number and bytes from the second one on), TCP.
    fn frame_v6(extensions: &[(u8, &[u8])]) -> Vec<u8> {
        let mut kinds: Vec<u8> = extensions.iter().map(|(kind, _)| *kind).collect();
        kinds.push(protocol::TCP);
        let mut payload = Vec::new();
        for ((_, bytes), next) in extensions.iter().zip(&kinds[1..]) {
            payload.push(*next);
            payload.extend(*bytes);
        }
        payload.extend(TCP);
        let mut frame = vec![0; 14 + 40];
        frame[14] = 0x60;
        frame[18..20].copy_from_slice(&u16::try_from(payload.len()).unwrap().to_be_bytes());
        frame[20] = kinds[0];
        frame[21] = 64;
        frame.extend(payload);
        frame
    }

    fn headers<F: Family>(
        frame: &[u8],
    ) -> Result<(NetworkHeader<F::Address>, TransportHeader), Outcome> {
        let network = F::network_header(frame, ETHERNET_HEADER_LEN)?.complete(frame)?;
        match PacketKind::read::<F>(frame, &network)? {
            PacketKind::Transport(transport) => Ok((network, transport)),
            PacketKind::LaterFragment => Err(Outcome::Fragment),
            PacketKind::IcmpError => Err(Outcome::UnrelatedIcmpError),
            PacketKind::Untranslatable(outcome) => Err(outcome),
        }
    }

    #[test]
    fn headers_are_found_behind_any_number_of_options() {
        for options in 0..=10 {
            let (network, transport) = headers::<V4>(&frame(options)).unwrap();
            assert_eq!(network.addresses.destination.octets, [10, 128, 0, 100]);
            assert_eq!(network.payload_offset, 34 + options * 4);
            assert_eq!(
                (transport.ports.source, transport.ports.destination),
                (Port::new(1000), Port::new(2000))
            );
            assert!(transport.flags.is_open_request() && transport.may_open);
        }
    }

    #[test]
    fn headers_are_found_behind_extension_headers() {
        let options: &[u8] = &[0, 1, 4, 0, 0, 0, 0];
        let long: &[u8] = &[1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let whole: &[u8] = &[0, 0, 0, 1, 2, 3, 4];
        for extensions in [
            &[][..],
            &[(extension::HOP_BY_HOP, options)],
            &[
                (extension::HOP_BY_HOP, long),
                (extension::DESTINATION, options),
            ],
            &[(extension::FRAGMENT, whole)],
            &[(extension::ROUTING, &[0, 0, 0, 0, 0, 0, 0])],
            &[
                (extension::HOP_BY_HOP, options),
                (extension::DESTINATION, long),
                (extension::ROUTING, &[0, 0, 0, 0, 0, 0, 0]),
                (extension::FRAGMENT, whole),
                (extension::DESTINATION, options),
            ],
        ] {
            let (network, transport) = headers::<V6>(&frame_v6(extensions)).unwrap();
            assert_eq!(network.payload_len, 20, "{extensions:?}");
            assert_eq!(
                transport.ports.destination,
                Port::new(2000),
                "{extensions:?}"
            );
        }
    }

    #[test]
    fn what_stands_behind_a_routing_header_with_segments_left_is_not_ours() {
        let frame = frame_v6(&[(extension::ROUTING, &[0, 0, 1, 0, 0, 0, 0])]);
        assert_eq!(headers::<V6>(&frame).unwrap_err(), Outcome::OtherProtocol);
    }

    #[test]
    fn a_fragment_header_tells_the_part() {
        for (field, part) in [
            ([0, 1], Part::First),
            ([0, 8], Part::Later),
            ([0xff, 0xf9], Part::Later),
        ] {
            let [high, low] = field;
            let frame = frame_v6(&[(extension::FRAGMENT, &[0, high, low, 1, 2, 3, 4])]);
            let network = V6::network_header(&frame[..], ETHERNET_HEADER_LEN).unwrap();
            assert_eq!(
                (network.part, network.protocol, network.payload_len),
                (part, protocol::TCP, 20)
            );
            assert_eq!(
                V6::fragment(&frame[..]).unwrap().id,
                u32::from_ne_bytes([1, 2, 3, 4])
            );
            assert_eq!(headers::<V6>(&frame).is_ok(), part == Part::First);
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_refused() {
        for options in [0, 1, 10] {
            let frame = frame(options);
            for cut in 14..frame.len() {
                assert_eq!(
                    headers::<V4>(&frame[..cut]).unwrap_err(),
                    Outcome::Truncated,
                    "cut at {cut}"
                );
            }
        }
        let frame = frame_v6(&[(extension::HOP_BY_HOP, &[0, 1, 4, 0, 0, 0, 0])]);
        for cut in 14..frame.len() {
            assert_eq!(
                headers::<V6>(&frame[..cut]).unwrap_err(),
                Outcome::Truncated,
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn a_header_that_contradicts_itself_is_malformed() {
        let cases: [(&str, usize, &[u8]); 5] = [
            ("version 6", 14, &[0x65]),
            ("header of four words", 14, &[0x44]),
            ("total length 0", 16, &[0, 0]),
            ("total length below the header's", 16, &[0, 19]),
            ("no room for a TCP header", 16, &[0, 39]),
        ];
        for (what, offset, bytes) in cases {
            let mut frame = frame(0);
            frame[offset..offset + bytes.len()].copy_from_slice(bytes);
            assert_eq!(
                headers::<V4>(&frame).unwrap_err(),
                Outcome::Malformed,
                "{what}"
            );
        }
        let mut long = frame_v6(&[(extension::HOP_BY_HOP, &[9, 1, 4, 0, 0, 0, 0])]);
        assert_eq!(headers::<V6>(&long).unwrap_err(), Outcome::Malformed);
        long[14] = 0x40;
        assert_eq!(headers::<V6>(&long).unwrap_err(), Outcome::Malformed);
    }

    #[test]
    fn an_ipv4_header_tells_the_part() {
        for (field, part) in [
            (0x0000, Part::Whole),
            (0x4000, Part::Whole),
            (0x2000, Part::First),
            (0x2001, Part::Later),
            (0x0001, Part::Later),
            (0x1fff, Part::Later),
        ] {
            let mut frame = frame(0);
            frame[20..22].copy_from_slice(&u16::to_be_bytes(field));
            let network = V4::network_header(&frame[..], ETHERNET_HEADER_LEN).unwrap();
            assert_eq!(network.part, part, "{field:#06x}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic_or_read_beyond_the_packet(frame in prop::collection::vec(any::<u8>(), 14..160)) {
            if let Ok((network, _)) = headers::<V4>(&frame) {
                prop_assert!(network.payload_offset + network.payload_len <= frame.len());
            }
            if let Ok((network, _)) = headers::<V6>(&frame) {
                prop_assert!(network.payload_offset + network.payload_len <= frame.len());
            }
        }
    }
}
