//! What a running router waits for, apart from its flow log and the queries of metrics.

use std::{io, time::Duration};

use aya_log::EbpfLogger;
use futures_util::{Stream, StreamExt as _};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Interval, MissedTickBehavior, interval},
};

use super::error::StartError;
use crate::{
    dataplane::Dataplane,
    net::interface::{Change, Interfaces},
};

/// How often idle flows are ended.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// How many changes are seen as one.
const CHANGES: usize = 1024;
/// How often next hops are looked at, if nothing tells of a change.
const NEXT_HOP_INTERVAL: Duration = Duration::from_millis(250);
/// How often the spec is looked at.
const SPEC_INTERVAL: Duration = Duration::from_secs(1);

/// The sources of events.
pub struct Events {
    /// Log records of the kernel half.
    pub kernel_log: AsyncFd<EbpfLogger<&'static dyn log::Log>>,
    /// Changes of interfaces, routes and neighbours: all that have come in the meantime at once.
    pub changes: Box<dyn Stream<Item = Vec<Change>> + Unpin>,
    pub sweeps: Interval,
    pub next_hops: Interval,
    pub spec_file: Interval,
}

impl Events {
    /// Begins to listen.
    pub fn of(dataplane: &mut Dataplane) -> Result<Self, StartError> {
        // SAFETY: the reader owns its file descriptor, and keeps it open as long as it is itself.
        let kernel_log =
            unsafe { AsyncFd::register_with_interest(dataplane.log_reader()?, Interest::READABLE) };
        Ok(Self {
            kernel_log: kernel_log.map_err(io::Error::from)?,
            changes: Box::new(Interfaces::changes()?.ready_chunks(CHANGES)),
            sweeps: every(SWEEP_INTERVAL),
            next_hops: every(NEXT_HOP_INTERVAL),
            spec_file: every(SPEC_INTERVAL),
        })
    }
}

fn every(period: Duration) -> Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
