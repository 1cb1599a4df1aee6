//! Writing the flow log while the router runs.

use std::{future, io};

use egress_common::Subscriber;
use thiserror::Error;
use tokio::io::{Interest, unix::AsyncFd};

use super::flow_log::{self, FlowLog};
use crate::{
    dataplane::{ListenError, Listener, Maps, MapsError},
    net::kernel,
};

/// Why the flow log is not written.
#[derive(Debug, Error)]
pub enum FlowLogError {
    /// The file cannot be opened.
    #[error("could not open the flow log {path} for writing")]
    Open {
        /// The file, as it was named.
        path: String,
        /// What the system says.
        source: io::Error,
    },
    /// The file takes no more.
    #[error("the flow log")]
    Write(#[source] io::Error),
    /// Another process has the events.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The kernel half's maps.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The events cannot be waited for.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// The flow log of the running router, if it keeps one.
pub struct FlowLogWriter(Option<Open>);

struct Open {
    events: AsyncFd<Listener>,
    log: FlowLog,
}

impl FlowLogWriter {
    /// Begins the flow log at `path`, if there is to be one.
    pub fn start(
        path: Option<&str>,
        maps: &Maps,
        cluster_ifindex: u32,
    ) -> Result<Self, FlowLogError> {
        let mut subscriber = maps.subscribe(Subscriber::Log)?;
        let Some(path) = path else {
            subscriber.silence()?;
            return Ok(Self(None));
        };
        let log = FlowLog::open(path).map_err(|source| FlowLogError::Open {
            path: path.to_owned(),
            source,
        })?;
        let mut events = subscriber.listen(cluster_ifindex)?;
        events.renew(kernel::monotonic_ns())?;
        // SAFETY: the listener owns its file descriptor, and keeps it open as long as it is itself.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }
            .map_err(io::Error::from)?;
        Ok(Self(Some(Open { events, log })))
    }

    /// Waits for events, and writes them; for ever if no flow log is kept. May be dropped at any point of waiting.
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

    /// Opens the file again, as after it was renamed to begin a new one.
    pub fn reopen(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Some(open) => open.log.reopen(),
            None => Ok(()),
        }
    }

    /// Writes what is left.
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
