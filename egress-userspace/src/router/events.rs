//! The events of the run loop, except those of the flow log and the metrics queries.

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
    net::interface::{Interfaces, NetworkChange},
};

/// The interval of sweeps, where the process ends idle flows.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// The maximum number of changes that the run loop handles in one turn.
const CHANGES: usize = 1024;
/// How often next hops are refreshed if the kernel reports no change.
const NEXT_HOP_INTERVAL: Duration = Duration::from_millis(250);
/// How often the spec file is checked for changes.
const SPEC_INTERVAL: Duration = Duration::from_secs(1);

/// The sources of events.
pub struct Events {
    /// Log records of the kernel half.
    pub kernel_log: AsyncFd<EbpfLogger<&'static dyn log::Log>>,
    /// Changes of interfaces, routes and neighbours, in batches.
    pub changes: Box<dyn Stream<Item = Vec<NetworkChange>> + Unpin>,
    pub sweeps: Interval,
    pub next_hops: Interval,
    pub spec_file: Interval,
}

impl Events {
    /// Opens all sources.
    pub fn listen(dataplane: &mut Dataplane) -> Result<Self, StartError> {
        // SAFETY: the reader owns its file descriptor and keeps it open for as long as it lives.
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
