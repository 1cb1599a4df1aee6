//! SCTP: opening and ending associations, and updating the checksum for changed ports.
//!
//! The checksum is the CRC32c of the packet (RFC 9260, appendix A), which does not cover addresses. A CRC is linear:
//! when ports change, the CRC changes by the CRC of the difference, shifted past everything after the ports. Shifting a
//! CRC past `n` zero bytes multiplies it by x^(8n) modulo the polynomial, which takes one multiplication per bit of
//! `n`.

use crate::tcp::{Flags, Seen};

/// Chunk types (RFC 9260, section 3.2).
pub mod chunk {
    /// User data.
    pub const DATA: u8 = 0;
    /// Opens an association. It is the only chunk of its packet.
    pub const INIT: u8 = 1;
    /// Answers INIT.
    pub const INIT_ACK: u8 = 2;
    /// Acknowledges data.
    pub const SACK: u8 = 3;
    /// Asks whether the peer is reachable.
    pub const HEARTBEAT: u8 = 4;
    /// Ends an association at once.
    pub const ABORT: u8 = 6;
    /// Starts the shutdown of an association.
    pub const SHUTDOWN: u8 = 7;
    /// Answers SHUTDOWN.
    pub const SHUTDOWN_ACK: u8 = 8;
    /// Answers INIT ACK.
    pub const COOKIE_ECHO: u8 = 10;
    /// Completes a shutdown.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// Returns `true` if a packet with this first chunk may open a flow: it opens an association, or continues one whose
/// flow was lost. ABORT, SHUTDOWN and answers to INIT do not.
#[inline(always)]
pub const fn may_open(first_chunk: u8) -> bool {
    matches!(
        first_chunk,
        chunk::INIT | chunk::DATA | chunk::SACK | chunk::HEARTBEAT | chunk::COOKIE_ECHO
    )
}

/// The TCP flag with the same effect as this first chunk: SYN opens, ACK continues, FIN starts a shutdown, RST ends.
#[inline(always)]
pub const fn flags(first_chunk: u8) -> Flags {
    Flags(match first_chunk {
        chunk::INIT | chunk::INIT_ACK => Flags::SYN,
        chunk::ABORT => Flags::RST,
        chunk::SHUTDOWN | chunk::SHUTDOWN_ACK | chunk::SHUTDOWN_COMPLETE => Flags::FIN,
        _ => Flags::ACK,
    })
}

/// The state of an association, with conntrack's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The client has sent an INIT.
    CookieWait,
    /// The client has sent a COOKIE ECHO.
    CookieEchoed,
    /// The flow was opened in the middle of the association, and the server has not answered yet.
    Unanswered,
    /// Both sides have sent data or acknowledgments.
    Established,
    /// One side has started the shutdown.
    Shutdown,
    /// One side has sent an ABORT.
    Closed,
}

impl State {
    /// Derives the state from the [`flags`] of both directions.
    pub const fn of(original: Seen, reply: Seen) -> Self {
        if original.any(Flags::RST) || reply.any(Flags::RST) {
            return Self::Closed;
        }
        if original.any(Flags::FIN) || reply.any(Flags::FIN) {
            return Self::Shutdown;
        }
        if !original.any(Flags::ACK) {
            return Self::CookieWait;
        }
        if reply.any(Flags::ACK) {
            Self::Established
        } else if original.any(Flags::SYN) {
            Self::CookieEchoed
        } else {
            Self::Unanswered
        }
    }

    /// Returns `true` if an INIT on the same tuple may open a new association, because this one has ended or is about
    /// to.
    pub const fn is_closing(self) -> bool {
        matches!(self, Self::Shutdown | Self::Closed)
    }

    /// Returns `true` if the association is not established yet.
    pub const fn is_embryonic(self) -> bool {
        matches!(
            self,
            Self::CookieWait | Self::CookieEchoed | Self::Unanswered
        )
    }

    /// The state's name: conntrack's, if it has one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CookieWait => "COOKIE_WAIT",
            Self::CookieEchoed => "COOKIE_ECHOED",
            Self::Unanswered => "HEARTBEAT_SENT",
            Self::Established => "ESTABLISHED",
            Self::Shutdown => "SHUTDOWN",
            Self::Closed => "CLOSED",
        }
    }
}

/// Returns `true` if a packet with this verification tag is a credible end of the association. `sender` and `receiver`
/// are the tags that the two sides announced in INIT and INIT ACK, or 0 if that was not seen.
///
/// A packet carries the tag that its receiver announced. The only exceptions are an ABORT or SHUTDOWN COMPLETE whose
/// sender does not know that tag: they carry the sender's own and have the T bit (RFC 9260, section 8.5.1).
#[inline(always)]
pub const fn is_credible_end(tag: u32, sender: u32, receiver: u32) -> bool {
    receiver == 0 || tag == receiver || (sender != 0 && tag == sender)
}

/// The Castagnoli polynomial, bit-reversed like the CRC.
const POLYNOMIAL: u32 = 0x82f6_3b78;
/// The number of bits of a packet's length, which is below 2¹⁶ bytes.
const LENGTH_BITS: usize = 16;
const NIBBLES: usize = 8;

/// `SHIFT[k][i][v]` is the nibble `v` at place `i` of a CRC, shifted past 2^k zero bytes. 8 KiB.
static SHIFT: [[[u32; 16]; NIBBLES]; LENGTH_BITS] = shift_tables();

/// Multiplies two polynomials modulo [`POLYNOMIAL`], bit-reversed: the highest bit is x⁰.
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
    // x^8 shifts past one byte.
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

/// Shifts a CRC past `length` zero bytes; `length` is below 2¹⁶.
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

/// The change (by exclusive or) to the checksum of a packet of `length` bytes when `new` ports replace `old` ones.
///
/// All three are words as they lie in memory on a little-endian machine, which is how RFC 9260 sends a CRC32c.
#[inline(always)]
pub fn checksum_delta(old: u32, new: u32, length: usize) -> u32 {
    // The CRC of four bytes, without a start value, is the four bytes shifted past themselves.
    shift(old ^ new, length)
}

/// The checksum of a packet of these words, as they lie in memory on a little-endian machine. The word of the checksum
/// itself must be 0.
#[inline(always)]
pub fn checksum<const WORDS: usize>(words: [u32; WORDS]) -> u32 {
    // The CRC so far, xored with the next word, is shifted past that word.
    !words
        .into_iter()
        .fold(!0, |crc, word| shift(crc ^ word, size_of::<u32>()))
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
    fn an_association_goes_through_its_states() {
        let seen = |chunks: &[u8]| {
            chunks
                .iter()
                .fold(Seen::NOTHING, |seen, chunk| seen.with(flags(*chunk)))
        };
        let steps: [(&[u8], &[u8], State); 9] = [
            (&[chunk::INIT], &[], State::CookieWait),
            (&[chunk::INIT], &[chunk::INIT_ACK], State::CookieWait),
            (
                &[chunk::INIT, chunk::COOKIE_ECHO],
                &[chunk::INIT_ACK],
                State::CookieEchoed,
            ),
            (
                &[chunk::INIT, chunk::COOKIE_ECHO, chunk::DATA],
                &[chunk::INIT_ACK, 11, chunk::SACK],
                State::Established,
            ),
            (&[chunk::HEARTBEAT], &[], State::Unanswered),
            (&[chunk::HEARTBEAT], &[5], State::Established),
            (
                &[chunk::DATA, chunk::SHUTDOWN],
                &[chunk::SACK],
                State::Shutdown,
            ),
            (
                &[chunk::DATA],
                &[chunk::SACK, chunk::SHUTDOWN],
                State::Shutdown,
            ),
            (&[chunk::DATA], &[chunk::ABORT], State::Closed),
        ];
        for (original, reply, expected) in steps {
            assert_eq!(
                State::of(seen(original), seen(reply)),
                expected,
                "after {original:?} and {reply:?}"
            );
        }
    }

    #[test]
    fn only_an_end_of_the_association_ends_it() {
        assert!(is_credible_end(7, 9, 7), "the receiver's tag");
        assert!(is_credible_end(9, 9, 7), "the sender's own, reflected");
        assert!(!is_credible_end(8, 9, 7));
        assert!(!is_credible_end(0, 0, 7), "0 is not a tag");
        assert!(is_credible_end(8, 0, 0), "nothing is known");
    }

    #[test]
    fn the_reference_is_crc32c() {
        // RFC 3720, appendix B.4.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(&[0xff; 32]), 0x62a8_ab43);
    }

    #[test]
    fn the_checksum_of_words_is_that_of_their_bytes() {
        let words: [u32; 5] = [0x0403_0201, 0xdead_beef, 0, 0x0000_0406, u32::MAX];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert_eq!(checksum(words), crc32c(&bytes));
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
            let delta = checksum_delta(old, u32::from_le_bytes(ports), packet.len());
            prop_assert_eq!(before ^ delta, crc32c(&packet));
        }
    }
}
