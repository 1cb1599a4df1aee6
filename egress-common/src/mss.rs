//! The maximum segment size that a TCP connection may agree on (RFC 9293, section 3.7.1).
//!
//! Where the two sides of the router have different MTUs and the network drops ICMP, hosts cannot find out which packets
//! fit. Lowering the option on SYN and SYN-ACK keeps segments small enough from the start.

use crate::{bytes::Bytes, checksum, outcome::Outcome};

/// Length of a TCP header without options.
pub const TCP_HEADER_LEN: usize = 20;

/// Option kinds: end of the list, padding, maximum segment size.
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MAXIMUM_SEGMENT_SIZE: u8 = 2;

/// Length of that option: kind, length, size.
const OPTION_LEN: usize = 4;

/// How many options are looked at. Every system known sends this one first.
const OPTIONS: usize = 6;

/// A segment size that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clamp {
    /// Where the size stands, from the start of the frame.
    pub offset: usize,
    /// What it becomes, in network byte order.
    pub size: [u8; 2],
    /// What that adds to the checksum.
    pub delta: u16,
}

/// Finds the option with the segment size of the SYN at `transport`: where it stands, from the start of the frame.
///
/// # Errors
///
/// [`Outcome::Truncated`] if the frame ends before.
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
            // Shorter than its own kind and length: nonsense from here on.
            _ if len < 2 => return Ok(None),
            _ => offset += len as usize,
        }
    }
    Ok(None)
}

/// Lowers the segment size of the option at `option`, if it is above `limit`, in the SYN at `transport`.
///
/// # Errors
///
/// [`Outcome::Truncated`] if the frame ends before.
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

/// What a changed size adds to the checksum: its two octets may lie in one 16-bit word, or across two.
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

    /// Finds and clamps the size of a segment.
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
