//! Subscribers: readers of records from the kernel half.

/// A subscriber, with a ring buffer of its own. The number is the index in `SUBSCRIBERS` and `EVENTS_LOST`, and is
/// never reused.
///
/// The value in `SUBSCRIBERS` is the end of the lease (`CLOCK_MONOTONIC` in nanoseconds), or 0 if nobody has
/// subscribed. A subscriber renews its lease, so that it expires when the process ends.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subscriber {
    /// The router's own flow log, which reads `FLOW_LOG`.
    Log = 0,
    /// `flows --follow`, which reads `FOLLOW`.
    Follow = 1,
    /// `trace`, which reads `TRACE`.
    Trace = 2,
}

impl Subscriber {
    /// The number of subscribers.
    pub const COUNT: usize = 3;
    /// A lease that never expires.
    pub const FOREVER: u64 = u64::MAX;
}
