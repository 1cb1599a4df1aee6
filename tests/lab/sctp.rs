//! Hand-made SCTP packets (RFC 9260). Not every kernel has SCTP sockets.

use anyhow::{Context as _, Result, ensure};

/// Chunk types (RFC 9260, section 3.2).
pub mod chunk {
    /// User data.
    pub const DATA: u8 = 0;
    /// Opens an association.
    pub const INIT: u8 = 1;
    /// Answers [`INIT`].
    pub const INIT_ACK: u8 = 2;
    /// Acknowledges [`DATA`].
    pub const SACK: u8 = 3;
    /// Aborts an association, or refuses it.
    pub const ABORT: u8 = 6;
    /// Starts to shut down an association.
    pub const SHUTDOWN: u8 = 7;
    /// Answers [`SHUTDOWN`].
    pub const SHUTDOWN_ACK: u8 = 8;
    /// Returns the cookie from [`INIT_ACK`].
    pub const COOKIE_ECHO: u8 = 10;
    /// Answers [`COOKIE_ECHO`].
    pub const COOKIE_ACK: u8 = 11;
    /// Answers [`SHUTDOWN_ACK`].
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// Length of the common header.
pub const HEADER_LEN: usize = 12;
const CHUNK_HEADER_LEN: usize = 4;
const CHECKSUM: std::ops::Range<usize> = 8..12;

/// The fields of the common header, and the type of the first chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender's port.
    pub source: u16,
    /// The receiver's port.
    pub destination: u16,
    /// The verification tag, which identifies the receiver's association.
    pub verification_tag: u32,
    /// The type of the first chunk.
    pub chunk: u8,
}

/// A packet with one chunk.
///
/// # Panics
/// If the value does not fit into a chunk.
pub fn packet(header: Header, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(CHUNK_HEADER_LEN + value.len()).expect("a value that fits");
    // The flags B and E: an unfragmented message.
    let flags = if header.chunk == chunk::DATA { 3 } else { 0 };
    let mut packet = Vec::new();
    packet.extend(header.source.to_be_bytes());
    packet.extend(header.destination.to_be_bytes());
    packet.extend(header.verification_tag.to_be_bytes());
    packet.extend([0; CHECKSUM.end - CHECKSUM.start]);
    packet.extend([header.chunk, flags]);
    packet.extend(length.to_be_bytes());
    packet.extend(value);
    packet.resize(packet.len().next_multiple_of(4), 0);
    let checksum = crc32c(&packet).to_le_bytes();
    packet[CHECKSUM].copy_from_slice(&checksum);
    packet
}

/// The value of an INIT or INIT ACK chunk without parameters (RFC 9260, section 3.3.2). `tag` is its initiate tag.
pub fn opening(tag: u32) -> Vec<u8> {
    const RECEIVER_WINDOW: u32 = 65_536;
    const STREAMS_EACH_WAY: [u16; 2] = [10, 10];
    let transmission_sequence_number = tag;
    [
        &tag.to_be_bytes(),
        &RECEIVER_WINDOW.to_be_bytes(),
        STREAMS_EACH_WAY.map(u16::to_be_bytes).as_flattened(),
        &transmission_sequence_number.to_be_bytes(),
    ]
    .concat()
}

/// The value of a DATA chunk (RFC 9260, section 3.3.1) with this message, the first one of stream 0.
pub fn data(transmission_sequence_number: u32, message: &[u8]) -> Vec<u8> {
    const STREAM_AND_PAYLOAD_PROTOCOL: [u8; 8] = [0; 8];
    [
        &transmission_sequence_number.to_be_bytes()[..],
        &STREAM_AND_PAYLOAD_PROTOCOL,
        message,
    ]
    .concat()
}

/// Parses a packet that has at least one chunk.
///
/// # Errors
/// When the packet is too short or its checksum is wrong.
pub fn parse(packet: &[u8]) -> Result<Header> {
    let (&[s0, s1, d0, d1, t0, t1, t2, t3, c0, c1, c2, c3, chunk], _) = packet
        .split_first_chunk::<{ HEADER_LEN + 1 }>()
        .with_context(|| format!("{} bytes are too short for an SCTP packet", packet.len()))?;
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

/// CRC32c, bit by bit (RFC 9260, appendix A).
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
    fn a_chunk_is_padded_to_whole_words_and_its_length_is_not() {
        let header = Header {
            source: 20_000,
            destination: 5_000,
            verification_tag: 1,
            chunk: chunk::DATA,
        };
        let packet = packet(header, &data(1, b"hello"));
        assert_eq!(packet.len(), HEADER_LEN + 24);
        assert_eq!(packet[HEADER_LEN..][..4], [chunk::DATA, 3, 0, 21]);
    }

    #[test]
    fn a_packet_is_read_as_it_was_written_and_damage_is_noticed() -> Result<()> {
        let header = Header {
            source: 20_000,
            destination: 5_000,
            verification_tag: 0,
            chunk: chunk::INIT,
        };
        let mut packet = packet(header, &opening(0x0123_4567));
        assert_eq!(parse(&packet)?, header);
        packet[0] ^= 1;
        assert!(parse(&packet).is_err());
        assert!(parse(&packet[..12]).is_err());
        Ok(())
    }
}
