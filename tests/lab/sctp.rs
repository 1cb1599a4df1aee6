//! SCTP packets made by hand (RFC 9260), as not every kernel has SCTP sockets.

use anyhow::{Context as _, Result, ensure};

/// SCTP's protocol number.
pub const PROTOCOL: u8 = 132;
/// The chunk type that opens an association.
pub const INIT: u8 = 1;
/// The chunk type that answers it.
pub const INIT_ACK: u8 = 2;

/// Length of the common header, which the first chunk follows.
pub const HEADER_LEN: usize = 12;
const CHECKSUM: std::ops::Range<usize> = 8..12;

/// What the common header and the first chunk say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's port.
    pub source: u16,
    /// The receiver's port.
    pub destination: u16,
    /// Tells the receiver's association.
    pub verification_tag: u32,
    /// The type of the first chunk.
    pub chunk: u8,
}

/// A packet with an INIT or INIT ACK chunk, whose sender wants `initiate_tag` for a
/// verification tag.
pub fn packet(header: Header, initiate_tag: u32) -> Vec<u8> {
    // Without parameters (RFC 9260, section 3.3.2): tag, receiver window, streams each
    // way, first transmission sequence number.
    const CHUNK_LEN: u16 = 20;
    let mut packet = Vec::new();
    packet.extend(header.source.to_be_bytes());
    packet.extend(header.destination.to_be_bytes());
    packet.extend(header.verification_tag.to_be_bytes());
    packet.extend([0; CHECKSUM.end - CHECKSUM.start]);
    packet.extend([header.chunk, 0]);
    packet.extend(CHUNK_LEN.to_be_bytes());
    packet.extend(initiate_tag.to_be_bytes());
    packet.extend(65_536_u32.to_be_bytes());
    packet.extend(10_u16.to_be_bytes());
    packet.extend(10_u16.to_be_bytes());
    packet.extend(initiate_tag.to_be_bytes());
    let checksum = crc32c(&packet).to_le_bytes();
    packet[CHECKSUM].copy_from_slice(&checksum);
    packet
}

/// Reads a packet that has at least one chunk.
///
/// # Errors
/// When it is too short or its checksum is wrong.
pub fn parse(packet: &[u8]) -> Result<Header> {
    let (&[s0, s1, d0, d1, t0, t1, t2, t3, c0, c1, c2, c3, chunk], _) = packet
        .split_first_chunk::<{ HEADER_LEN + 1 }>()
        .with_context(|| format!("{} bytes are no SCTP packet", packet.len()))?;
    let mut cleared = packet.to_vec();
    cleared[CHECKSUM].fill(0);
    let (expected, found) = (crc32c(&cleared), u32::from_le_bytes([c0, c1, c2, c3]));
    ensure!(
        found == expected,
        "the SCTP checksum is {found:#010x}, expected {expected:#010x}"
    );
    Ok(Header {
        source: u16::from_be_bytes([s0, s1]),
        destination: u16::from_be_bytes([d0, d1]),
        verification_tag: u32::from_be_bytes([t0, t1, t2, t3]),
        chunk,
    })
}

/// The CRC with Castagnoli's polynomial, bit by bit (RFC 9260, appendix A).
fn crc32c(bytes: &[u8]) -> u32 {
    const REVERSED_POLYNOMIAL: u32 = 0x82f6_3b78;
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc: u32, _| {
            (crc >> 1) ^ (REVERSED_POLYNOMIAL & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn a_packet_is_read_as_it_was_written_and_damage_is_noticed() -> Result<()> {
        let header = Header {
            source: 20_000,
            destination: 5_000,
            verification_tag: 0,
            chunk: INIT,
        };
        let mut packet = packet(header, 0x0123_4567);
        assert_eq!(parse(&packet)?, header);
        packet[0] ^= 1;
        assert!(parse(&packet).is_err());
        assert!(parse(&packet[..12]).is_err());
        Ok(())
    }
}
