//! Computes, verifies and updates checksums.

use std::net::{IpAddr, SocketAddr};

use crc::{CRC_32_ISCSI, Crc};
use etherparse::checksum::Sum16BitWords;

use crate::family::Family;
use crate::protocol;

const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// The Internet checksum (RFC 1071) of these bytes, in host order.
pub fn internet(bytes: &[u8]) -> u16 {
    finish(Sum16BitWords::new().add_slice(bytes))
}

/// The checksum of a transport packet with its pseudo-header. ICMP over IPv4 has no pseudo-header.
pub fn transport(source: IpAddr, destination: IpAddr, protocol: u8, packet: &[u8]) -> u16 {
    let sum = Sum16BitWords::new().add_slice(packet);
    if protocol == protocol::ICMP {
        return finish(sum);
    }
    let length = u32::try_from(packet.len()).unwrap_or(u32::MAX);
    let sum = sum
        .add_slice(&length.to_be_bytes())
        .add_slice(&[0, protocol]);
    let with_address = |sum: Sum16BitWords, address| match address {
        IpAddr::V4(address) => sum.add_slice(&address.octets()),
        IpAddr::V6(address) => sum.add_slice(&address.octets()),
    };
    finish(with_address(with_address(sum, source), destination))
}

/// Updates an Internet checksum for a changed word (RFC 1624). A result of zero is returned as 0xffff, which represents
/// the same number.
pub fn follow(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = Sum16BitWords::new()
        .add_2bytes((!checksum).to_be_bytes())
        .add_2bytes((!old).to_be_bytes())
        .add_2bytes(new.to_be_bytes());
    one_zero(finish(sum))
}

/// Maps the two representations of zero to one.
pub const fn one_zero(checksum: u16) -> u16 {
    if checksum == 0 { 0xffff } else { checksum }
}

/// The SCTP checksum in the packet's byte order (RFC 9260, appendix A). The packet's checksum field must be 0.
pub fn sctp(packet: &[u8]) -> [u8; 4] {
    CRC32C.checksum(packet).to_le_bytes()
}

/// An ordinary IP packet with a UDP datagram.
pub fn datagram(
    family: Family,
    source: SocketAddr,
    destination: SocketAddr,
    payload: &[u8],
) -> Vec<u8> {
    use crate::recipe::{Body, Ends, Recipe};
    let ends = Ends {
        source,
        destination,
    };
    let body = Body::Udp {
        checksum: true,
        payload: payload.to_vec(),
    };
    Recipe::of(body).packet(family, ends)
}

/// `Sum16BitWords` adds words as they lie in memory.
fn finish(sum: Sum16BitWords) -> u16 {
    u16::from_be_bytes(sum.ones_complement().to_ne_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_follows_a_changed_word() {
        let mut bytes = *b"any even number of bytes";
        let before = internet(&bytes);
        let (old, new) = (u16::from_be_bytes([bytes[4], bytes[5]]), 0xfedc);
        bytes[4..6].copy_from_slice(&u16::to_be_bytes(new));
        assert_eq!(follow(before, old, new), internet(&bytes));
    }

    #[test]
    fn sctp_has_crc32c() {
        // RFC 3720, appendix B.4.
        assert_eq!(sctp(&[0; 32]), 0x8a91_36aa_u32.to_le_bytes());
    }
}
