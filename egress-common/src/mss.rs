//! Clamping the maximum segment size of a TCP connection (RFC 9293, section 3.7.1).
//!
//! If the two sides of the router have different MTUs and the network drops ICMP, hosts cannot discover the path MTU. A
//! lower MSS option on SYN and SYN-ACK keeps segments small enough from the start.

use crate::{bytes::Bytes, checksum, outcome::Outcome};

/// Length of a TCP header without options.
pub const TCP_HEADER_LEN: usize = 20;

/// Option kinds: end of list, no-operation, maximum segment size.
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;

/// Length of the MSS option: kind, length, size.
const OPTION_LEN: usize = 4;

/// The maximum number of options to read. All known systems send the MSS first.
const OPTIONS: usize = 6;

/// The change that clamps a segment size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clamp {
    /// The offset of the size from the start of the frame.
    pub offset: usize,
    /// The new size, in network byte order.
    pub size: [u8; 2],
    /// The delta of the checksum.
    pub delta: u16,
}

/// Finds the MSS option of the SYN whose TCP header is at `transport`. Returns the offset of the option from the start
/// of the frame.
///
/// # Errors
///
/// [`Outcome::Truncated`] if the frame is too short.
#[inline(always)]
pub fn find(packet: &(impl Bytes + ?Sized), transport: usize) -> Result<Option<usize>, Outcome> {
    let [data_offset, _]: [u8; 2] = packet.load(transport + 12).ok_or(Outcome::Truncated)?;
    let end = transport + (data_offset >> 4) as usize * 4;
    let mut offset = transport + TCP_HEADER_LEN;
    for _ in 0..OPTIONS {
        if offset + OPTION_LEN > end {
            return Ok(None);
        }
        let [kind, len, ..]: [u8; OPTION_LEN] = packet.load(offset).ok_or(Outcome::Truncated)?;
        match kind {
            MAXIMUM_SEGMENT_SIZE => return Ok(Some(offset)),
            NO_OPERATION => offset += 1,
            END => return Ok(None),
            // A length below 2 does not even cover kind and length: the list is invalid.
            _ if len < 2 => return Ok(None),
            _ => offset += len as usize,
        }
    }
    Ok(None)
}

/// Lowers the MSS option at `option` to `limit`, if it is larger, in the SYN whose TCP header is at `transport`.
///
/// # Errors
///
/// [`Outcome::Truncated`] if the frame is too short.
#[inline(always)]
pub fn clamp(
    packet: &(impl Bytes + ?Sized),
    transport: usize,
    option: usize,
    limit: u16,
) -> Result<Option<Clamp>, Outcome> {
    let offset = option + 2;
    let old: [u8; 2] = packet.load(offset).ok_or(Outcome::Truncated)?;
    if u16::from_be_bytes(old) <= limit {
        return Ok(None);
    }
    let size = limit.to_be_bytes();
    Ok(Some(Clamp {
        offset,
        size,
        delta: delta(offset - transport, old, size),
    }))
}

/// The checksum delta of a changed size, whose two octets may lie in one 16-bit word or across two.
#[inline(always)]
const fn delta(place: usize, [old_high, old_low]: [u8; 2], [new_high, new_low]: [u8; 2]) -> u16 {
    let (old, new) = if place.is_multiple_of(2) {
        (
            u16::from_ne_bytes([old_high, old_low]) as u32,
            u16::from_ne_bytes([new_high, new_low]) as u32,
        )
    } else {
        (
            u16::from_ne_bytes([0, old_high]) as u32 + u16::from_ne_bytes([old_low, 0]) as u32,
            u16::from_ne_bytes([0, new_high]) as u32 + u16::from_ne_bytes([new_low, 0]) as u32,
        )
    };
    checksum::delta(old, new)
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;
    use std::vec::Vec;

    use super::*;

    fn segment(options: &[u8]) -> Vec<u8> {
        let mut segment = [0; TCP_HEADER_LEN].to_vec();
        segment.extend(options);
        while segment.len() % 4 != 0 {
            segment.push(END);
        }
        segment[12] = u8::try_from(segment.len() / 4).unwrap() << 4;
        segment
    }

    /// Finds and clamps the MSS of a segment.
    fn clamp_in(segment: &[u8], limit: u16) -> Option<Clamp> {
        let option = find(segment, 0).unwrap()?;
        clamp(segment, 0, option, limit).unwrap()
    }

    fn sum(bytes: &[u8]) -> u32 {
        bytes
            .chunks(2)
            .map(|word| u32::from(u16::from_ne_bytes([word[0], word[1]])))
            .sum()
    }

    #[test]
    fn only_a_size_above_the_limit_is_clamped() {
        let linux = [
            2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7,
        ];
        let clamped =
            |options: &[u8], limit| clamp_in(&segment(options), limit).map(|clamp| clamp.size);
        assert_eq!(clamped(&linux, 1360), Some([0x05, 0x50]));
        assert_eq!(clamped(&linux, 1460), None);
        assert_eq!(clamped(&[], 1360), None);
        assert_eq!(
            clamped(&[1, 1, 4, 2, 2, 4, 0xff, 0xff], 1360),
            Some([0x05, 0x50])
        );
        assert_eq!(
            clamped(&[0, 2, 4, 0xff, 0xff], 1360),
            None,
            "behind the end of the list"
        );
        assert_eq!(
            clamped(&[9, 0, 2, 4, 0xff, 0xff], 1360),
            None,
            "behind nonsense"
        );
    }

    proptest! {
        #[test]
        fn the_delta_gives_the_recomputed_checksum(padding in 0_usize..4, size in 1361_u16.., limit in 500_u16..1361) {
            let mut options = [NO_OPERATION].repeat(padding);
            options.extend([MAXIMUM_SEGMENT_SIZE, 4]);
            options.extend(size.to_be_bytes());
            let mut segment = segment(&options);
            let before = !checksum::fold(sum(&segment));
            let clamp = clamp_in(&segment, limit).unwrap();
            segment[clamp.offset..clamp.offset + 2].copy_from_slice(&clamp.size);
            prop_assert_eq!(checksum::apply(before, clamp.delta), !checksum::fold(sum(&segment)));
        }

        #[test]
        fn no_options_make_it_panic(options in prop::collection::vec(any::<u8>(), 0..40), limit: u16) {
            let _ = clamp_in(&segment(&options), limit);
        }
    }
}
