//! Taps: who listens to what the kernel half does.

/// A listener, each with a ring buffer of its own. The number is the index in `TAPS` and `TAPS_LOST`.
///
/// The value in `TAPS` is the time until which it listens (`CLOCK_MONOTONIC` in nanoseconds), 0 for not at all. One that
/// puts that time off again and again ends by itself when its process does.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tap {
    /// The router's own flow log, by `FLOW_LOG`.
    Log = 0,
    /// Whoever follows the flows, by `FOLLOW`.
    Follow = 1,
    /// Whoever traces packets, by `TRACE`.
    Trace = 2,
}

impl Tap {
    /// How many there are.
    pub const COUNT: usize = 3;
    /// The value in `TAPS` of one that listens until it says otherwise.
    pub const FOREVER: u64 = u64::MAX;
}
