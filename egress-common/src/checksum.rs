//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! A translation changes the same words in every packet of a flow. The change to the checksum is therefore computed
//! once, when the flow is opened, and kept with the flow as a *delta*: `apply(checksum, delta(old, new))` is the
//! checksum of the packet with the new words. Sums are taken over 16-bit words as they lie in memory, which is correct
//! in either byte order (RFC 1071, section 2).

/// Folds a sum of 16-bit words into a 16-bit one's complement number.
///
/// `sum` may have carried up to 2¹⁶ times, which a 32-bit sum of 16-bit words never exceeds.
#[inline(always)]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    #[expect(clippy::cast_possible_truncation, reason = "folding leaves 16 bits")]
    let folded = ((sum & 0xffff) + (sum >> 16)) as u16;
    folded
}

/// The change to a checksum when words with the sum `old` are replaced by words with the sum `new`; 0 if nothing
/// changes.
///
/// This is the one's complement difference, in which a borrow wraps around to the lowest bit. It has no branch, because
/// the kernel's verifier would follow both sides of each.
#[inline(always)]
pub const fn delta(old: u32, new: u32) -> u16 {
    let difference = fold(new) as i32 - fold(old) as i32;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the sign is the borrow, the rest has 16 bits"
    )]
    let delta = ((difference & 0xffff) + (difference >> 31)) as u16;
    delta
}

/// Updates a checksum by `delta` (RFC 1624, equation 3).
#[inline(always)]
pub const fn apply(checksum: u16, delta: u16) -> u16 {
    !fold(!checksum as u32 + delta as u32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The checksum from scratch, as RFC 1071 defines it.
    fn checksum(words: &[u16]) -> u16 {
        !fold(words.iter().map(|word| u32::from(*word)).sum())
    }

    fn sum(words: &[u16]) -> u32 {
        words.iter().map(|word| u32::from(*word)).sum()
    }

    /// In one's complement, 0x0000 and 0xffff are both zero.
    fn same(a: u16, b: u16) -> bool {
        a == b || (a ^ b == 0xffff && (a == 0 || b == 0))
    }

    #[test]
    fn the_example_of_rfc_1624_comes_out() {
        // RFC 1624, section 4: HC = 0xdd2f, m = 0x5555, m' = 0x3285, HC' = 0x0000.
        assert_eq!(apply(0xdd2f, delta(0x5555, 0x3285)), 0x0000);
    }

    #[test]
    fn no_change_has_no_delta_and_applying_it_changes_nothing() {
        for words in [0, 1, 0xffff, 0x1_fffe, 0x1234] {
            assert_eq!(delta(words, words), 0);
        }
        for checksum in [0, 1, 0xfffe, 0xffff] {
            assert_eq!(apply(checksum, 0), checksum);
        }
    }

    proptest! {
        #[test]
        fn a_delta_gives_the_recomputed_checksum(
            mut packet in prop::collection::vec(any::<u16>(), 2..750),
            replacement in prop::collection::vec(any::<u16>(), 1..16),
        ) {
            let changed = replacement.len().min(packet.len());
            let before = checksum(&packet);
            let delta = delta(sum(&packet[..changed]), sum(&replacement[..changed]));
            packet[..changed].copy_from_slice(&replacement[..changed]);
            let after = apply(before, delta);
            prop_assert!(same(after, checksum(&packet)), "{after:#06x} is not {:#06x}", checksum(&packet));
            // The receiver's check: the packet and its checksum sum to all ones.
            let verified = fold(sum(&packet) + u32::from(after));
            prop_assert!(verified == 0xffff || sum(&packet) == 0);
        }

        #[test]
        fn two_deltas_applied_in_turn_are_the_delta_of_both(
            before: u16, a in any::<[u16; 2]>(), b in any::<[u16; 2]>(), c in any::<[u16; 2]>(),
        ) {
            let both = delta(sum(&a) + sum(&b), sum(&b) + sum(&c));
            let turn = apply(apply(before, delta(sum(&a), sum(&b))), delta(sum(&b), sum(&c)));
            prop_assert!(same(apply(before, both), turn));
        }

        #[test]
        fn a_translation_and_its_reverse_cancel_out(before: u16, old: [u16; 6], new: [u16; 6]) {
            let there = apply(before, delta(sum(&old), sum(&new)));
            let back = apply(there, delta(sum(&new), sum(&old)));
            prop_assert!(same(back, before));
        }
    }
}
