//! Flow events: a flow was opened or has ended. An event contains both flow entries.

use bytemuck::{AnyBitPattern, Pod, Zeroable};

use crate::{
    flow::{Flow, FlowState},
    network::{Address, Ipv4Address, Ipv6Address},
    tuple::Tuple,
};

/// What happened to a flow, and why. The number is the one in [`FlowEvent`] and is never reused.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// A client's packet opened it.
    Opened = 0,
    /// It was idle for longer than the timeout of its state.
    Idle = 1,
    /// The client or the server had closed it, and the timeout of its state expired.
    Closed = 2,
    /// It was evicted from a full table.
    Evicted = 3,
    /// Its client opened a new connection from the same port.
    Reopened = 4,
    /// Its rule was changed or removed.
    RuleChanged = 5,
}

impl Change {
    /// All changes, in the order of their numbers.
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

    /// The reason why the flow ended, as the flow log writes it; `None` if the flow was opened.
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

/// A flow was opened or has ended: a record of the ring buffers `FLOW_LOG` and `FOLLOW`.
///
/// The length of a record tells its family.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowEvent<A> {
    /// The time of the event: `CLOCK_MONOTONIC` in nanoseconds, accurate to a few milliseconds.
    pub time_ns: u64,
    /// A [`Change`].
    change: u32,
    padding: u32,
    /// The tuple of the client's packets.
    pub tuple: Tuple<A>,
    /// The original entry, at the time of the event.
    pub original: Flow<A>,
    /// The reply entry, at the time of the event.
    pub reply: Flow<A>,
}

const _: () = assert!(size_of::<FlowEvent<Ipv4Address>>() == 160);
const _: () = assert!(size_of::<FlowEvent<Ipv6Address>>() == 232);

// SAFETY: all fields are zeroable.
unsafe impl<A: Zeroable> Zeroable for FlowEvent<A> {}
// SAFETY: `repr(C)` with explicit padding, as the size assertions prove for both address types.
unsafe impl<A: Pod> Pod for FlowEvent<A> {}

impl<A: Address> FlowEvent<A> {
    /// Sets the [`Change`], by its number, and the time.
    #[inline(always)]
    pub const fn set_change(&mut self, change: u32, time_ns: u64) {
        self.change = change;
        self.padding = 0;
        self.time_ns = time_ns;
    }

    /// The change; `None` for a record of another version.
    ///
    /// The kernel half reports idle and closed flows alike. The flow's state tells them apart.
    pub fn change(&self) -> Option<Change> {
        let state = FlowState::of(self.tuple.protocol, &self.original, &self.reply);
        match Change::from_number(self.change)? {
            Change::Idle if state.is_over() => Some(Change::Closed),
            change => Some(change),
        }
    }
}

/// A request to the program `end_flow`. It is the payload of the frame that the program runs on; the Ethernet header of
/// the frame tells the family.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndOrder<A> {
    /// The time when the flow was opened, which tells it from a later one with the same tuple.
    pub opened_ns: u64,
    /// The tuple of the client's packets.
    pub tuple: Tuple<A>,
    /// The reason for the end: a [`Change`].
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
    /// Requests the end of the flow with this tuple that was opened at `opened_ns`.
    pub const fn new(tuple: Tuple<A>, opened_ns: u64, change: Change) -> Self {
        Self {
            opened_ns,
            tuple,
            change: change as u32,
            padding: 0,
        }
    }
}

/// A ring buffer record of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<V4, V6> {
    /// An IPv4 record.
    V4(V4),
    /// An IPv6 record.
    V6(V6),
}

impl<V4: AnyBitPattern, V6: AnyBitPattern> Either<V4, V6> {
    /// Reads a record. The length tells its family; `None` for a length that this version does not know.
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
        event.set_change(Change::Idle as u32, 1);
        assert_eq!(event.change(), Some(Change::Idle));
        event.reply.seen = event.reply.seen.with(Flags(Flags::RST));
        assert_eq!(event.change(), Some(Change::Closed));
        event.set_change(Change::Reopened as u32, 1);
        assert_eq!(event.change(), Some(Change::Reopened));
    }
}
