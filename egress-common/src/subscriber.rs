//! Subscribers: who reads records from the kernel half.

/// A listener, each with a ring buffer of its own. The number is the index in `SUBSCRIBERS` and `EVENTS_LOST`, and
/// never another's.
///
/// The value in `SUBSCRIBERS` is the time until which it listens (`CLOCK_MONOTONIC` in nanoseconds), 0 for not at all. One that
/// puts that time off again and again ends by itself when its process does.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subscriber {
    /// The router's own flow log, by `FLOW_LOG`.
    Log = 0,
    /// Whoever follows the flows, by `FOLLOW`.
    Follow = 1,
    /// Whoever traces packets, by `TRACE`.
    Trace = 2,
}

impl Subscriber {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// The value in `SUBSCRIBERS` of one that listens until it says otherwise.
    pub const FOREVER: u64 = u64::MAX;
}
