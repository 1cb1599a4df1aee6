//! Keeping the flow log while the router runs.

use std::{future, io};

use anyhow::Context as _;
use egress_common::Subscriber;
use tokio::io::{Interest, unix::AsyncFd};

use crate::{
    dataplane::{FlowChange, Listener, Maps},
    net::kernel,
    telemetry::flow_log::{FlowLog, Line, WallClock},
};

/// How many events are written at a time, so that packets' next hops do not wait.
const BATCH: usize = 1024;

/// The flow log of the running router, if it keeps one.
pub struct Recorder(Option<Recording>);

struct Recording {
    events: AsyncFd<Listener>,
    log: FlowLog,
}

impl Recorder {
    /// Begins the flow log at `path`, if there is to be one.
    pub fn start(path: Option<&str>, maps: &Maps, cluster_ifindex: u32) -> anyhow::Result<Self> {
        let mut subscriber = maps.subscribe(Subscriber::Log)?;
        let Some(path) = path else {
            subscriber.silence()?;
            return Ok(Self(None));
        };
        let log = FlowLog::open(path)
            .with_context(|| format!("could not open the flow log {path} for writing"))?;
        let mut events = subscriber.listen(cluster_ifindex)?;
        events.renew(kernel::monotonic_ns())?;
        // SAFETY: the listener owns its file descriptor, and keeps it open as long as it is itself.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }
            .map_err(io::Error::from)?;
        Ok(Self(Some(Recording { events, log })))
    }

    /// Waits for events, and writes them; for ever if no flow log is kept. May be dropped at any point of waiting.
    pub async fn record(&mut self) -> anyhow::Result<()> {
        let Some(recording) = &mut self.0 else {
            return future::pending().await;
        };
        let mut ready = recording.events.readable_mut().await?;
        let (lines, is_empty) = read(ready.get_inner_mut())?;
        if is_empty {
            ready.clear_ready();
        }
        recording.log.write(lines).context("the flow log")
    }

    /// Opens the file again, as after it was renamed to begin a new one.
    pub fn reopen(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Some(recording) => recording.log.reopen(),
            None => Ok(()),
        }
    }

    /// Writes what is left.
    pub fn finish(self) -> anyhow::Result<()> {
        let Some(Recording {
            mut events,
            mut log,
        }) = self.0
        else {
            return Ok(());
        };
        loop {
            let (lines, is_empty) = read(events.get_mut())?;
            log.write(lines)?;
            if is_empty {
                return Ok(());
            }
        }
    }
}

/// A batch of events, and whether no others are left.
pub fn read(events: &mut Listener) -> anyhow::Result<(Vec<Line>, bool)> {
    let clock = WallClock::now();
    let mut lines = Vec::new();
    let is_empty = loop {
        if lines.len() == BATCH {
            break false;
        }
        match events.next_record(FlowChange::read) {
            None => break true,
            Some(event) => lines.extend(event.map(|event| Line::of(&event, &clock))),
        }
    };
    let lost = events.take_lost()?;
    if lost > 0 {
        lines.push(Line::lost(lost, &clock));
    }
    Ok((lines, is_empty))
}
