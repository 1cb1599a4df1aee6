//! Flow events: that a flow was opened or has ended, with all that the flow table had of it.

use bytemuck::{AnyBitPattern, Pod, Zeroable};

use crate::{
    flow::{Flow, FlowState},
    network::{Address, Ipv4Address, Ipv6Address},
    tuple::Tuple,
};

/// What has happened to a flow, and why. The number is that in [`FlowEvent`], and never reused.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// It was opened by a client's packet.
    Opened = 0,
    /// It was idle for longer than its state allows.
    Idle = 1,
    /// It was over by what its ends had sent, and was taken out when its state's time was up.
    Closed = 2,
    /// It made room for another in a full table.
    Evicted = 3,
    /// Its client opened a new connection on the same ports.
    Reopened = 4,
    /// Its rule was changed or removed.
    RuleChanged = 5,
}

impl Change {
    /// Every change, in the order of its number.
    pub const ALL: [Self; 6] = [
        Self::Opened,
        Self::Idle,
        Self::Closed,
        Self::Evicted,
        Self::Reopened,
        Self::RuleChanged,
    ];

    /// The change with this number.
    #[inline(always)]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Opened),
            1 => Some(Self::Idle),
            2 => Some(Self::Closed),
            3 => Some(Self::Evicted),
            4 => Some(Self::Reopened),
            5 => Some(Self::RuleChanged),
            _ => None,
        }
    }

    /// Why the flow has ended, in the flow log's word; `None` if it was opened.
    pub const fn reason(self) -> Option<&'static str> {
        match self {
            Self::Opened => None,
            Self::Idle => Some("idle"),
            Self::Closed => Some("closed"),
            Self::Evicted => Some("evicted"),
            Self::Reopened => Some("reopened"),
            Self::RuleChanged => Some("rule_changed"),
        }
    }
}

/// A flow that was opened or has ended: a record of the ring buffers `FLOW_LOG` and `FOLLOW`.
///
/// The two families' records are told apart by their length.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEvent<A> {
    /// When it happened: `CLOCK_MONOTONIC` in nanoseconds, exact to a few milliseconds.
    pub time_ns: u64,
    /// A [`Change`].
    change: u32,
    padding: u32,
    /// The tuple of the client's packets.
    pub tuple: Tuple<A>,
    /// The entry of the client's packets, as it was.
    pub original: Flow<A>,
    /// The entry of the server's packets.
    pub reply: Flow<A>,
}

const _: () = assert!(size_of::<FlowEvent<Ipv4Address>>() == 160);
const _: () = assert!(size_of::<FlowEvent<Ipv6Address>>() == 232);

// SAFETY: all fields are zeroable.
unsafe impl<A: Zeroable> Zeroable for FlowEvent<A> {}
// SAFETY: `repr(C)` with explicit padding, as the size assertions prove for both address types.
unsafe impl<A: Pod> Pod for FlowEvent<A> {}

impl<A: Address> FlowEvent<A> {
    /// Notes what has happened: a [`Change`] by its number.
    #[inline(always)]
    pub const fn happened(&mut self, change: u32, time_ns: u64) {
        self.change = change;
        self.padding = 0;
        self.time_ns = time_ns;
    }

    /// What has happened; `None` for a record that this version did not write.
    ///
    /// The kernel half does not tell a flow that was over from one that was idle: the state does.
    pub fn change(&self) -> Option<Change> {
        let state = FlowState::of(self.tuple.protocol, &self.original, &self.reply);
        match Change::from_number(self.change)? {
            Change::Idle if state.is_over() => Some(Change::Closed),
            change => Some(change),
        }
    }
}

/// What userspace asks the program `end_flow` to do: the payload of the frame that it is run with, behind an Ethernet
/// header that names the family.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndOrder<A> {
    /// When the flow was opened, which tells it from a later one with the same tuple.
    pub opened_ns: u64,
    /// The tuple of the client's packets.
    pub tuple: Tuple<A>,
    /// A [`Change`]: why it is to end.
    pub change: u32,
    padding: u32,
}

const _: () = assert!(size_of::<EndOrder<Ipv4Address>>() == 32);
const _: () = assert!(size_of::<EndOrder<Ipv6Address>>() == 56);

// SAFETY: all fields are zeroable.
unsafe impl<A: Zeroable> Zeroable for EndOrder<A> {}
// SAFETY: `repr(C)` with explicit padding, as the size assertions prove for both address types.
unsafe impl<A: Pod> Pod for EndOrder<A> {}

impl<A: Address> EndOrder<A> {
    /// The order to end the flow with this tuple that was opened at `opened_ns`.
    pub const fn new(tuple: Tuple<A>, opened_ns: u64, change: Change) -> Self {
        Self {
            opened_ns,
            tuple,
            change: change as u32,
            padding: 0,
        }
    }
}

/// A record of a ring buffer, whichever family it is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<V4, V6> {
    /// Of IPv4.
    V4(V4),
    /// Of IPv6.
    V6(V6),
}

impl<V4: AnyBitPattern, V6: AnyBitPattern> Either<V4, V6> {
    /// Reads a record, told by its length; `None` for one that this version did not write.
    pub fn read(record: &[u8]) -> Option<Self> {
        const { assert!(size_of::<V4>() != size_of::<V6>()) };
        if record.len() == size_of::<V4>() {
            Some(Self::V4(bytemuck::pod_read_unaligned(record)))
        } else if record.len() == size_of::<V6>() {
            Some(Self::V6(bytemuck::pod_read_unaligned(record)))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Side, protocol, tcp::Flags};

    type Read = Either<FlowEvent<Ipv4Address>, FlowEvent<Ipv6Address>>;

    #[test]
    fn a_change_is_known_by_its_number_and_only_ends_have_a_reason() {
        for (number, change) in (0..).zip(Change::ALL) {
            assert_eq!(change as u32, number);
            assert_eq!(Change::from_number(number), Some(change));
            assert_eq!(change.reason().is_none(), change == Change::Opened);
        }
        assert_eq!(Change::from_number(6), None);
    }

    #[test]
    fn a_record_is_read_by_its_length_and_no_other_is() {
        let v4 = FlowEvent::<Ipv4Address>::zeroed();
        assert_eq!(Read::read(bytemuck::bytes_of(&v4)), Some(Either::V4(v4)));
        let v6 = FlowEvent::<Ipv6Address>::zeroed();
        assert_eq!(Read::read(bytemuck::bytes_of(&v6)), Some(Either::V6(v6)));
        assert_eq!(Read::read(&bytemuck::bytes_of(&v6)[1..]), None);
        assert_eq!(Read::read(&[]), None);
    }

    #[test]
    fn a_connection_that_was_reset_is_closed_and_one_that_fell_silent_is_idle() {
        let mut event = FlowEvent::<Ipv4Address>::zeroed();
        event.tuple = Tuple::new(
            Side::Cluster,
            protocol::TCP,
            event.tuple.addresses,
            event.tuple.ports,
        );
        event.original.seen = event.original.seen.with(Flags(Flags::SYN | Flags::ACK));
        event.reply.seen = event.reply.seen.with(Flags(Flags::SYN | Flags::ACK));
        event.happened(Change::Idle as u32, 1);
        assert_eq!(event.change(), Some(Change::Idle));
        event.reply.seen = event.reply.seen.with(Flags(Flags::RST));
        assert_eq!(event.change(), Some(Change::Closed));
        event.happened(Change::Reopened as u32, 1);
        assert_eq!(event.change(), Some(Change::Reopened));
    }
}
