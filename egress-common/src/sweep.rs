//! The sweep queue, with which the kernel half finds idle flows.

use crate::{
    network::{Address, Ipv4Address, Ipv6Address},
    tuple::Tuple,
};

/// A flow in the sweep queue: an element of `SWEEP_V4` and `SWEEP_V6`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SweepItem<A> {
    /// The tuple of the client's packets.
    pub tuple: Tuple<A>,
    /// The lower half of the time when the flow was opened, which tells it from an earlier flow with the same tuple.
    pub opened: u32,
    /// The tick of the last visit.
    pub tick: u32,
}

const _: () = assert!(size_of::<SweepItem<Ipv4Address>>() == 24);
const _: () = assert!(size_of::<SweepItem<Ipv6Address>>() == 48);

impl<A: Address> SweepItem<A> {
    /// Ticks between two visits to a flow. A tick is 2²⁷ ns, about 134 ms.
    pub const INTERVAL: u32 = 10;

    /// The item of a flow that was opened at `opened_ns`.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only the lower half is used"
    )]
    pub const fn new(tuple: Tuple<A>, opened_ns: u64, tick: u32) -> Self {
        Self {
            tuple,
            opened: opened_ns as u32,
            tick,
        }
    }

    /// Returns `true` if the next visit is due.
    #[inline(always)]
    pub const fn is_due(&self, tick: u32) -> bool {
        tick.wrapping_sub(self.tick) >= Self::INTERVAL
    }

    /// Returns `true` if this is the item of the flow that was opened at `opened_ns`.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only the lower half is used"
    )]
    pub const fn is_of(&self, opened_ns: u64) -> bool {
        self.opened == opened_ns as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Pair, Port, Ports, Side, protocol};

    #[test]
    fn an_item_is_due_a_second_after_a_visit_and_survives_the_counters_end() {
        let address = Ipv4Address { octets: [0; 4] };
        let ports = Ports {
            source: Port::new(1),
            destination: Port::new(2),
        };
        let addresses = Pair {
            source: address,
            destination: address,
        };
        let tuple = Tuple::new(Side::Cluster, protocol::UDP, addresses, ports);
        let item = SweepItem::new(tuple, 5, u32::MAX - 3);
        assert!(!item.is_due(u32::MAX - 3));
        assert!(!item.is_due(5));
        assert!(item.is_due(6));
        assert!(item.is_of(5) && !item.is_of(6));
    }
}
