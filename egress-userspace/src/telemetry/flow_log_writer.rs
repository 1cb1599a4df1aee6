//! Writes the flow log of a running router.

use std::{future, io};

use egress_common::Subscriber;
use thiserror::Error;
use tokio::io::{Interest, unix::AsyncFd};

use super::flow_log::{self, FlowLog};
use crate::{
    dataplane::{ListenError, Listener, Maps, MapsError},
    net::kernel,
};

/// Why the flow log cannot be written.
#[derive(Debug, Error)]
pub enum FlowLogError {
    /// The file cannot be opened.
    #[error("could not open the flow log {path} for writing")]
    Open {
        /// The file, as it was named.
        path: String,
        /// The system's error.
        source: io::Error,
    },
    /// A line cannot be written.
    #[error("could not write to the flow log")]
    Write(#[source] io::Error),
    /// Another process reads the events.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The kernel refused a map operation.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// Waiting for events failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The flow log of a running router; without a path it writes nothing.
pub struct FlowLogWriter(Option<Open>);

struct Open {
    events: AsyncFd<Listener>,
    log: FlowLog,
}

impl FlowLogWriter {
    /// Opens the flow log at `path` and subscribes to flow events.
    pub fn start(
        path: Option<&str>,
        maps: &Maps,
        cluster_ifindex: u32,
    ) -> Result<Self, FlowLogError> {
        let mut subscription = maps.subscribe(Subscriber::Log)?;
        let Some(path) = path else {
            subscription.end_lease()?;
            return Ok(Self(None));
        };
        let log = FlowLog::open(path).map_err(|source| FlowLogError::Open {
            path: path.to_owned(),
            source,
        })?;
        let mut events = subscription.listen(cluster_ifindex)?;
        events.renew(kernel::monotonic_ns())?;
        // SAFETY: the listener owns its file descriptor and keeps it open for as long as it lives.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }
            .map_err(io::Error::from)?;
        Ok(Self(Some(Open { events, log })))
    }

    /// Waits for events and writes them. Waits forever without a flow log. The future is cancellation safe.
    pub async fn record(&mut self) -> Result<(), FlowLogError> {
        let Some(open) = &mut self.0 else {
            return future::pending().await;
        };
        let mut ready = open.events.readable_mut().await?;
        let (lines, is_empty) = flow_log::read_batch(ready.get_inner_mut())?;
        if is_empty {
            ready.clear_ready();
        }
        open.log.write(lines).map_err(FlowLogError::Write)
    }

    /// Opens the file again after it was renamed.
    pub fn reopen(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Some(open) => open.log.reopen(),
            None => Ok(()),
        }
    }

    /// Writes the events that are left.
    pub fn finish(self) -> Result<(), FlowLogError> {
        let Some(Open {
            mut events,
            mut log,
        }) = self.0
        else {
            return Ok(());
        };
        loop {
            let (lines, is_empty) = flow_log::read_batch(events.get_mut())?;
            log.write(lines).map_err(FlowLogError::Write)?;
            if is_empty {
                return Ok(());
            }
        }
    }
}
