//! SCTP: which packets open an association, and how its checksum follows a changed port.
//!
//! The checksum is the CRC32c of the packet (RFC 9260, appendix A). It covers no addresses. A CRC is linear: when ports
//! change, the CRC changes by the CRC of the difference, moved past all that follows the ports. Moving a CRC past `n` zero
//! bytes multiplies it by x^(8n) modulo the polynomial, which takes a multiplication for each bit of `n`.

/// INIT, the first chunk of an association's first packet (RFC 9260, section 3.2).
const INIT: u8 = 1;
/// The chunks that may start a flow in the middle of an association: DATA, SACK, HEARTBEAT, COOKIE ECHO.
const DATA: u8 = 0;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const COOKIE_ECHO: u8 = 10;

/// Whether a packet with this first chunk may start a flow: one that opens an association, or carries on with one whose
/// flow was lost. ABORT, SHUTDOWN and answers to INIT start nothing.
#[inline(always)]
pub const fn may_open(first_chunk: u8) -> bool {
    matches!(first_chunk, INIT | DATA | SACK | HEARTBEAT | COOKIE_ECHO)
}

/// The Castagnoli polynomial, bit-reversed as its CRC is.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// Packets are shorter than 2¹⁶ bytes.
const LENGTH_BITS: usize = 16;
const NIBBLES: usize = 8;

/// `SHIFT[k][i][v]`: the nibble `v` at place `i` of a CRC, moved past 2^k zero bytes. 8 KiB.
static SHIFT: [[[u32; 16]; NIBBLES]; LENGTH_BITS] = shift_tables();

/// The product of two polynomials modulo [`POLYNOMIAL`], in the bit-reversed form: the highest bit is x⁰.
const fn multiply(a: u32, b: u32) -> u32 {
    let mut product = 0;
    let mut power = b;
    let mut bit = 1_u32 << 31;
    while bit != 0 {
        if a & bit != 0 {
            product ^= power;
        }
        power = (power >> 1) ^ (POLYNOMIAL & (power & 1).wrapping_neg());
        bit >>= 1;
    }
    product
}

#[expect(clippy::cast_possible_truncation, reason = "a nibble")]
const fn shift_tables() -> [[[u32; 16]; NIBBLES]; LENGTH_BITS] {
    let mut tables = [[[0; 16]; NIBBLES]; LENGTH_BITS];
    // x^8: past one byte.
    let mut factor = 1_u32 << (31 - 8);
    let mut k = 0;
    while k < LENGTH_BITS {
        let mut place = 0;
        while place < NIBBLES {
            let mut value = 0;
            while value < 16 {
                tables[k][place][value] = multiply((value as u32) << (4 * place), factor);
                value += 1;
            }
            place += 1;
        }
        factor = multiply(factor, factor);
        k += 1;
    }
    tables
}

/// Moves a CRC past `length` zero bytes; `length` is below 2¹⁶.
#[inline(always)]
fn shift(mut crc: u32, length: usize) -> u32 {
    for (k, table) in SHIFT.iter().enumerate() {
        if length >> k & 1 != 0 {
            let mut shifted = 0;
            for (place, nibble) in table.iter().enumerate() {
                shifted ^= nibble[(crc >> (4 * place) & 0xf) as usize];
            }
            crc = shifted;
        }
    }
    crc
}

/// The checksum of a packet whose ports were replaced.
///
/// `checksum`, `old` and `new` are the words as they lie in memory on a little-endian machine, which is how RFC 9260
/// sends a CRC32c. `length` is that of the SCTP packet.
#[inline(always)]
pub fn update_checksum(checksum: u32, old: u32, new: u32, length: usize) -> u32 {
    // The CRC of four bytes, without start value, is the four bytes moved past themselves.
    checksum ^ shift(old ^ new, length)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    /// CRC32c bit by bit.
    fn crc32c(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                (crc >> 1) ^ (POLYNOMIAL & (crc & 1).wrapping_neg())
            })
        })
    }

    #[test]
    fn the_reference_is_crc32c() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    proptest! {
        #[test]
        fn the_patched_checksum_is_the_recomputed_one(
            mut packet in prop::collection::vec(any::<u8>(), 12..9100), ports: [u8; 4],
        ) {
            packet[8..12].fill(0);
            let before = crc32c(&packet);
            let old: Vec<u8> = packet[..4].to_vec();
            packet[..4].copy_from_slice(&ports);
            let old = u32::from_le_bytes(old.try_into().unwrap());
            let patched = update_checksum(before, old, u32::from_le_bytes(ports), packet.len());
            prop_assert_eq!(patched, crc32c(&packet));
        }
    }
}
