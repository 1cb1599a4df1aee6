//! Choosing a NAT port.

use bytemuck::{Pod, Zeroable};

use crate::network::Port;

/// The NAT range: one range of ports, or two if the pod's own local port range lies in between.
///
/// The numbers are in host byte order, for arithmetic.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct NatRange {
    /// First port of the lower part.
    low_start: u16,
    /// Number of ports in the lower part.
    low_len: u16,
    /// First port of the upper part.
    high_start: u16,
    /// Number of ports in the upper part.
    high_len: u16,
}

impl NatRange {
    /// Ports below this one are reserved for system services.
    const FIRST: u16 = 1024;

    /// All ports from 1024 on, except those that the pod's own sockets may use. `local` is the first and last port of
    /// `net.ipv4.ip_local_port_range`.
    pub const fn without(local: (u16, u16)) -> Self {
        let (first, last) = local;
        let local_is_below = last < Self::FIRST || last < first;
        let (first, last) = if local_is_below {
            (Self::FIRST, Self::FIRST - 1)
        } else if first < Self::FIRST {
            (Self::FIRST, last)
        } else {
            (first, last)
        };
        Self {
            low_start: Self::FIRST,
            low_len: first - Self::FIRST,
            high_start: last.wrapping_add(1),
            high_len: u16::MAX - last,
        }
    }

    /// The number of ports.
    #[inline(always)]
    pub const fn len(&self) -> u32 {
        self.low_len as u32 + self.high_len as u32
    }

    /// Returns `true` if the range has no ports.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns `true` if flows may use this port.
    #[inline(always)]
    pub const fn contains(&self, port: Port) -> bool {
        let number = port.number();
        number.wrapping_sub(self.low_start) < self.low_len
            || number.wrapping_sub(self.high_start) < self.high_len
    }

    /// The port at `index`, which must be below [`Self::len`].
    #[inline(always)]
    pub const fn nth(&self, index: u32) -> Port {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "an index below len() fits into a port"
        )]
        let index = index as u16;
        if index < self.low_len {
            Port::new(self.low_start.wrapping_add(index))
        } else {
            Port::new(self.high_start.wrapping_add(index - self.low_len))
        }
    }
}

/// The NAT ports to try for a new flow if its preferred port is taken or out of range. They are all ports of the range,
/// each once, from a random start and with a random step.
///
/// An odd step visits every 16-bit number once; numbers beyond the range are skipped. Steps of one would skip less, but
/// get slower as taken ports form clusters (RFC 6056, section 3.3.1).
#[derive(Clone, Copy, Debug)]
pub struct Candidates {
    len: u32,
    start: u16,
    step: u16,
}

impl Candidates {
    /// The number of attempts that cover the whole range.
    pub const ATTEMPTS: u32 = 1 << 16;

    /// The candidates in a range, for a uniformly random number.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "each half is used")]
    pub const fn new(range: NatRange, random: u32) -> Self {
        Self {
            len: range.len(),
            start: random as u16,
            step: (random >> 16) as u16 | 1,
        }
    }

    /// The candidate for this attempt, as an index for [`NatRange::nth`]; `None` to continue with the next attempt.
    /// Attempts count from 0 and are below [`Self::ATTEMPTS`].
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "an attempt fits into 16 bits"
    )]
    pub const fn nth(&self, attempt: u32) -> Option<u32> {
        let index = self
            .start
            .wrapping_add(self.step.wrapping_mul(attempt as u16)) as u32;
        if index < self.len { Some(index) } else { None }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use proptest::prelude::*;
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_usual_local_range_is_left_out() {
        let range = NatRange::without((32768, 60999));
        assert_eq!(range.len(), (32768 - 1024) + (65535 - 60999));
        for (port, inside) in [
            (0, false),
            (1023, false),
            (1024, true),
            (32767, true),
            (32768, false),
            (60999, false),
            (61000, true),
            (65535, true),
        ] {
            assert_eq!(range.contains(Port::new(port)), inside, "port {port}");
        }
    }

    #[test]
    fn a_local_range_that_covers_everything_leaves_nothing() {
        assert!(NatRange::without((1, 65535)).is_empty());
        let none = Candidates::new(NatRange::without((1, 65535)), 7);
        assert!((0..Candidates::ATTEMPTS).all(|attempt| none.nth(attempt).is_none()));
    }

    proptest! {
        #[test]
        fn the_range_is_every_port_from_1024_on_but_the_local_ones(first: u16, last: u16) {
            let range = NatRange::without((first, last));
            let listed: BTreeSet<u16> = (0..range.len()).map(|index| range.nth(index).number()).collect();
            let expected: BTreeSet<u16> = (1024..=u16::MAX).filter(|port| !(first..=last).contains(port)).collect();
            prop_assert_eq!(&listed, &expected);
            for port in 0..=u16::MAX {
                prop_assert_eq!(range.contains(Port::new(port)), expected.contains(&port), "port {}", port);
            }
        }

        #[test]
        fn every_port_of_the_range_is_a_candidate_once(first: u16, last: u16, random: u32) {
            let range = NatRange::without((first, last));
            let candidates = Candidates::new(range, random);
            let tried: std::vec::Vec<Port> = (0..Candidates::ATTEMPTS)
                .filter_map(|attempt| candidates.nth(attempt))
                .map(|index| range.nth(index))
                .collect();
            prop_assert_eq!(tried.len(), range.len() as usize);
            prop_assert!(tried.iter().all(|port| range.contains(*port)));
            prop_assert_eq!(tried.iter().collect::<BTreeSet<_>>().len(), tried.len());
        }
    }
}
