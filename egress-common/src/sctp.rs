//! SCTP: which packets open and end an association, and how its checksum follows a changed port.
//!
//! The checksum is the CRC32c of the packet (RFC 9260, appendix A). It covers no addresses. A CRC is linear: when ports
//! change, the CRC changes by the CRC of the difference, moved past all that follows the ports. Moving a CRC past `n` zero
//! bytes multiplies it by x^(8n) modulo the polynomial, which takes a multiplication for each bit of `n`.

use crate::tcp::{Flags, Seen};

/// Chunk types (RFC 9260, section 3.2).
pub mod chunk {
    /// User data.
    pub const DATA: u8 = 0;
    /// Opens an association: the only chunk of its first packet.
    pub const INIT: u8 = 1;
    /// Answers INIT.
    pub const INIT_ACK: u8 = 2;
    /// Acknowledges data.
    pub const SACK: u8 = 3;
    /// Asks whether the peer is reachable.
    pub const HEARTBEAT: u8 = 4;
    /// Ends an association at once.
    pub const ABORT: u8 = 6;
    /// Begins to end an association.
    pub const SHUTDOWN: u8 = 7;
    /// Answers SHUTDOWN.
    pub const SHUTDOWN_ACK: u8 = 8;
    /// Answers INIT ACK.
    pub const COOKIE_ECHO: u8 = 10;
    /// The last word of an association.
    pub const SHUTDOWN_COMPLETE: u8 = 14;
}

/// Whether a packet with this first chunk may start a flow: one that opens an association, or carries on with one whose
/// flow was lost. ABORT, SHUTDOWN and answers to INIT start nothing.
#[inline(always)]
pub const fn may_open(first_chunk: u8) -> bool {
    matches!(
        first_chunk,
        chunk::INIT | chunk::DATA | chunk::SACK | chunk::HEARTBEAT | chunk::COOKIE_ECHO
    )
}

/// What a packet with this first chunk does to its association, by the flag of TCP that does the same: SYN opens, ACK
/// carries on, FIN begins to end, RST ends.
#[inline(always)]
pub const fn flags(first_chunk: u8) -> Flags {
    Flags(match first_chunk {
        chunk::INIT | chunk::INIT_ACK => Flags::SYN,
        chunk::ABORT => Flags::RST,
        chunk::SHUTDOWN | chunk::SHUTDOWN_ACK | chunk::SHUTDOWN_COMPLETE => Flags::FIN,
        _ => Flags::ACK,
    })
}

/// An association's state, named as in conntrack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The client has sent an INIT.
    CookieWait,
    /// The client has sent a COOKIE ECHO.
    CookieEchoed,
    /// Picked up in the middle; the server has not been heard yet.
    Unanswered,
    /// Both sides carry on.
    Established,
    /// One side has begun to shut down.
    Shutdown,
    /// One side has sent an ABORT.
    Closed,
}

impl State {
    /// The state of the association whose directions have shown these [`flags`].
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

    /// Whether an INIT on the same tuple asks for a new association, because this one has ended or is about to.
    pub const fn is_closing(self) -> bool {
        matches!(self, Self::Shutdown | Self::Closed)
    }

    /// Whether there is no association yet.
    pub const fn is_embryonic(self) -> bool {
        matches!(
            self,
            Self::CookieWait | Self::CookieEchoed | Self::Unanswered
        )
    }

    /// The state's name, as conntrack writes it where it has one.
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

/// Whether a packet with this verification tag comes from an end of the association, and so may end it. The tags are those
/// that `sender` and `receiver` have announced in INIT and INIT ACK, 0 where that was not seen.
///
/// A packet has the tag that its receiver announced. Only of an ABORT or SHUTDOWN COMPLETE whose sender does not know that
/// one (the T bit) it is the sender's own (RFC 9260, section 8.5.1).
#[inline(always)]
pub const fn is_credible_end(tag: u32, sender: u32, receiver: u32) -> bool {
    receiver == 0 || tag == receiver || (sender != 0 && tag == sender)
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

/// What replaced ports add (by exclusive or) to the checksum of a packet of `length` bytes.
///
/// It, `old` and `new` are words as they lie in memory on a little-endian machine, which is how RFC 9260 sends a CRC32c.
#[inline(always)]
pub fn checksum_delta(old: u32, new: u32, length: usize) -> u32 {
    // The CRC of four bytes, without start value, is the four bytes moved past themselves.
    shift(old ^ new, length)
}

/// The checksum of a packet of these words, as they lie in memory on a little-endian machine; that of the checksum itself
/// is 0.
#[inline(always)]
pub fn checksum<const WORDS: usize>(words: [u32; WORDS]) -> u32 {
    // Between two words the CRC is that of the bytes so far; the next word's difference to it is moved past itself.
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
        assert!(!is_credible_end(0, 0, 7), "no tag is nobody's");
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
