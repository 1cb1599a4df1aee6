//! IPv4 and IPv6 behind one trait, so that the pipeline is written once.

use crate::{
    network::{Address, Ipv4Address},
    outcome::Outcome,
    packet::{Bytes, ETHERNET_HEADER_LEN, Ipv4Header, NetworkHeader},
};

/// An address family.
pub trait Family: 'static {
    /// Its addresses.
    type Address: Address;

    /// Reads the IP header of a frame.
    ///
    /// # Errors
    ///
    /// [`Outcome::Truncated`] if the frame ends too early, [`Outcome::Malformed`] if the header contradicts itself.
    fn network_header(
        packet: &(impl Bytes + ?Sized),
    ) -> Result<NetworkHeader<Self::Address>, Outcome>;
}

/// IPv4 (RFC 791).
#[derive(Clone, Copy, Debug)]
pub struct V4;

impl Family for V4 {
    type Address = Ipv4Address;

    #[inline(always)]
    fn network_header(
        packet: &(impl Bytes + ?Sized),
    ) -> Result<NetworkHeader<Ipv4Address>, Outcome> {
        let header: Ipv4Header = packet.load(ETHERNET_HEADER_LEN).ok_or(Outcome::Truncated)?;
        let header_len = header.header_len().ok_or(Outcome::Malformed)?;
        let received = packet.len() - ETHERNET_HEADER_LEN;
        let total_len = match u16::from_be_bytes(header.total_length) {
            // A segmentation-offload packet above 64 KiB ("BIG TCP") cannot say its length and leaves it at 0.
            0 if received > u16::MAX as usize => received,
            length => length as usize,
        };
        if total_len < header_len {
            return Err(Outcome::Malformed);
        }
        if total_len > received {
            return Err(Outcome::Truncated);
        }
        Ok(NetworkHeader {
            addresses: header.addresses,
            protocol: header.protocol,
            is_fragment: header.is_fragment(),
            payload_offset: ETHERNET_HEADER_LEN + header_len,
            payload_len: total_len - header_len,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{network::Port, packet::TransportHeader, tcp::Flags};

    /// Ethernet, IPv4 with `options` words of options, TCP from port 1000 to 2000 with SYN.
    fn frame(options: usize) -> ([u8; 14 + 60 + 20], usize) {
        let mut frame = [0; 14 + 60 + 20];
        let header_len = 20 + options * 4;
        let total = header_len + 20;
        frame[14] = 0x45 + u8::try_from(options).unwrap();
        frame[16..18].copy_from_slice(&u16::try_from(total).unwrap().to_be_bytes());
        frame[23] = crate::protocol::TCP;
        frame[26..30].copy_from_slice(&[10, 128, 0, 2]);
        frame[30..34].copy_from_slice(&[10, 128, 0, 100]);
        let transport = 14 + header_len;
        frame[transport..transport + 4].copy_from_slice(&[0x03, 0xe8, 0x07, 0xd0]);
        frame[transport + 12..transport + 14].copy_from_slice(&[0x50, Flags::SYN]);
        (frame, 14 + total)
    }

    #[test]
    fn headers_are_found_behind_any_number_of_options() {
        for options in 0..=10 {
            let (frame, len) = frame(options);
            let frame = &frame[..len];
            let network = V4::network_header(frame).unwrap();
            assert_eq!(network.addresses.destination.octets, [10, 128, 0, 100]);
            assert_eq!(network.payload_offset, 34 + options * 4);
            let transport = TransportHeader::read(frame, &network).unwrap();
            assert_eq!(
                (transport.ports.source, transport.ports.destination),
                (Port::new(1000), Port::new(2000))
            );
            assert!(transport.flags.is_open_request());
        }
    }

    #[test]
    fn a_frame_cut_anywhere_is_refused() {
        for options in [0, 1, 10] {
            let (frame, len) = frame(options);
            for cut in 14..len {
                let outcome = V4::network_header(&frame[..cut])
                    .and_then(|network| TransportHeader::read(&frame[..cut], &network));
                assert_eq!(outcome, Err(Outcome::Truncated), "cut at {cut} of {len}");
            }
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
            let (mut frame, len) = frame(0);
            frame[offset..offset + bytes.len()].copy_from_slice(bytes);
            let outcome = V4::network_header(&frame[..len])
                .and_then(|network| TransportHeader::read(&frame[..len], &network));
            assert_eq!(outcome, Err(Outcome::Malformed), "{what}");
        }
    }

    #[test]
    fn every_fragment_is_seen_as_one_and_an_unfragmented_packet_is_not() {
        for (fragment, is_fragment) in [
            (0x0000, false),
            (0x4000, false),
            (0x2000, true),
            (0x0001, true),
            (0x1fff, true),
        ] {
            let (mut frame, len) = frame(0);
            frame[20..22].copy_from_slice(&u16::to_be_bytes(fragment));
            assert_eq!(
                V4::network_header(&frame[..len]).unwrap().is_fragment,
                is_fragment,
                "{fragment:#06x}"
            );
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic_or_read_beyond_the_packet(frame in prop::collection::vec(any::<u8>(), 14..120)) {
            if let Ok(network) = V4::network_header(&frame[..]) {
                prop_assert!(network.payload_offset + network.payload_len <= frame.len());
                let _ = TransportHeader::read(&frame[..], &network);
            }
        }
    }
}
