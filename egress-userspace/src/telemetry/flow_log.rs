//! The flow log: who used the reserved address, when, and towards whom. A line of JSON for each flow that is opened or has
//! ended.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufWriter, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use egress_common::Change;
use serde::Serialize;

use crate::{
    dataplane::{Endpoint, FlowChange, Listener, MapsError, TrafficReport},
    net::kernel,
};

/// Tells the time of day of what has a time stamp of `CLOCK_MONOTONIC`.
///
/// Made anew for each batch, so that it follows when the clock is set.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    now: SystemTime,
    now_ns: u64,
}

impl WallClock {
    /// By the clocks as they are now.
    pub fn now() -> Self {
        Self {
            now: SystemTime::now(),
            now_ns: kernel::monotonic_ns(),
        }
    }

    /// The time in UTC as RFC 3339 has it, with milliseconds.
    pub fn format(&self, time_ns: u64) -> String {
        let time = if time_ns > self.now_ns {
            self.now
                .checked_add(Duration::from_nanos(time_ns - self.now_ns))
        } else {
            self.now
                .checked_sub(Duration::from_nanos(self.now_ns - time_ns))
        };
        humantime::format_rfc3339_millis(time.unwrap_or(self.now)).to_string()
    }
}

/// A line of the flow log.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// A flow was opened.
    Start(FlowLine),
    /// A flow has ended.
    End(FlowLine),
    /// Records were lost before this line, because they came faster than they were read.
    Lost {
        /// When that was found.
        time: String,
        /// How many.
        records: u64,
    },
}

/// What the log says of a flow.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FlowLine {
    /// When it happened (RFC 3339, UTC).
    pub time: String,
    /// Why the flow has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// `TCP`, `UDP`, `SCTP`, `ICMP` or `ICMPv6`.
    pub protocol: String,
    /// The client, as it connects to the router.
    pub client: Endpoint,
    /// The router, as the client connects to it.
    pub router: Endpoint,
    /// The reserved address and NAT port, as the server sees the router.
    pub reserved: Endpoint,
    /// The server.
    pub server: Endpoint,
    /// The rule's index in the spec.
    pub rule: u32,
    /// The connection's state.
    pub state: &'static str,
    /// When it was opened.
    pub opened: String,
    /// When its last packet passed, at most a second behind.
    pub last_packet: String,
    /// Seconds from the one to the other.
    pub duration_seconds: f64,
    /// From the client to the server.
    pub original: TrafficReport,
    /// From the server to the client.
    pub reply: TrafficReport,
}

impl Line {
    /// The line of a flow event.
    pub fn of(event: &FlowChange, clock: &WallClock) -> Self {
        let FlowChange {
            change,
            time_ns,
            opened_ns,
            last_seen_ns,
            flow,
        } = event;
        let line = FlowLine {
            time: clock.format(*time_ns),
            reason: change.reason(),
            protocol: flow.protocol.clone(),
            client: flow.client,
            router: flow.router,
            reserved: flow.reserved,
            server: flow.server,
            rule: flow.rule,
            state: flow.state,
            opened: clock.format(*opened_ns),
            last_packet: clock.format(*last_seen_ns),
            duration_seconds: seconds(last_seen_ns.saturating_sub(*opened_ns)),
            original: flow.original,
            reply: flow.reply,
        };
        if *change == Change::Opened {
            Self::Start(line)
        } else {
            Self::End(line)
        }
    }

    /// The line that says that records were lost.
    pub fn lost(records: u64, clock: &WallClock) -> Self {
        Self::Lost {
            time: clock.format(clock.now_ns),
            records,
        }
    }
}

/// How many events are taken at a time, so that packets' next hops do not wait.
const BATCH: usize = 1024;

/// Takes a batch of events out of the ring buffer: their lines, and whether no others are left.
///
/// # Errors
///
/// If the kernel refuses.
pub fn read_batch(events: &mut Listener) -> Result<(Vec<Line>, bool), MapsError> {
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

/// In milliseconds.
fn seconds(duration_ns: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of 285,000 years")]
    let milliseconds = (duration_ns / 1_000_000) as f64;
    milliseconds / 1e3
}

/// Where the flow log is written to.
pub struct FlowLog {
    /// `None` for standard output.
    path: Option<PathBuf>,
    out: BufWriter<Box<dyn Write>>,
}

impl FlowLog {
    /// Opens the file, which is made readable for its owner only if it is new, and added to if it is not; `-` is standard
    /// output.
    ///
    /// # Errors
    ///
    /// If it cannot be opened for writing.
    pub fn open(path: &str) -> io::Result<Self> {
        if path == "-" {
            return Ok(Self {
                path: None,
                out: BufWriter::new(Box::new(io::stdout())),
            });
        }
        let path = PathBuf::from(path);
        let out = BufWriter::new(Box::new(open(&path)?) as Box<dyn Write>);
        Ok(Self {
            path: Some(path),
            out,
        })
    }

    /// Opens the file again, as after it was renamed to begin a new one.
    ///
    /// # Errors
    ///
    /// If it cannot be opened; then the one before stays.
    pub fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            let file = open(path)?;
            let flushed = self.out.flush();
            self.out = BufWriter::new(Box::new(file));
            flushed?;
        }
        Ok(())
    }

    /// Writes these lines, at once.
    ///
    /// # Errors
    ///
    /// If the file takes no more.
    pub fn write(&mut self, lines: impl IntoIterator<Item = Line>) -> io::Result<()> {
        for line in lines {
            serde_json::to_writer(&mut self.out, &line)?;
            self.out.write_all(b"\n")?;
        }
        self.out.flush()
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}
