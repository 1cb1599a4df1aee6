//! The flow log: who used the reserved address, when, and towards which server. It has one JSON line for each flow
//! event.

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

/// Converts `CLOCK_MONOTONIC` time stamps to wall clock time.
///
/// Each batch takes a new one, in case the wall clock was set.
#[derive(Clone, Copy, Debug)]
pub struct WallClock {
    now: SystemTime,
    now_ns: u64,
}

impl WallClock {
    /// Reads both clocks.
    pub fn now() -> Self {
        Self {
            now: SystemTime::now(),
            now_ns: kernel::monotonic_ns(),
        }
    }

    /// The time as RFC 3339, in UTC with milliseconds.
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
    /// Records were lost before this line because the process did not read them fast enough.
    Lost {
        /// When the loss was detected.
        time: String,
        /// The number of lost records.
        records: u64,
    },
}

/// The flow of a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FlowLine {
    /// When the flow was opened or ended (RFC 3339, UTC).
    pub time: String,
    /// Why the flow ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'static str>,
    /// `TCP`, `UDP`, `SCTP`, `ICMP` or `ICMPv6`.
    pub protocol: String,
    /// The client's endpoint.
    pub client: Endpoint,
    /// The router's endpoint that the client connects to.
    pub router: Endpoint,
    /// The reserved address and the NAT port.
    pub reserved: Endpoint,
    /// The server.
    pub server: Endpoint,
    /// The rule's index in the spec.
    pub rule: u32,
    /// The connection's state.
    pub state: &'static str,
    /// When the flow was opened.
    pub opened: String,
    /// When the last packet passed, up to a second late.
    pub last_packet: String,
    /// Seconds from `opened` to `last_packet`, with millisecond resolution.
    pub duration_seconds: f64,
    /// Packets and bytes from the client to the server.
    pub original: TrafficReport,
    /// Packets and bytes from the server to the client.
    pub reply: TrafficReport,
}

impl Line {
    /// The line for a flow event.
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

    /// A line about lost records.
    pub fn lost(records: u64, clock: &WallClock) -> Self {
        Self::Lost {
            time: clock.format(clock.now_ns),
            records,
        }
    }
}

/// The maximum number of events per batch, so that a busy flow log does not delay the run loop's other tasks.
const BATCH: usize = 1024;

/// Reads a batch of events from the ring buffer. Returns their lines, and whether the buffer is empty now.
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

/// Converts nanoseconds to seconds, truncated to the millisecond.
fn seconds(duration_ns: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "milliseconds of 285,000 years")]
    let milliseconds = (duration_ns / 1_000_000) as f64;
    milliseconds / 1e3
}

/// The file or standard output that the flow log is written to.
pub struct FlowLog {
    /// `None` for standard output.
    path: Option<PathBuf>,
    out: BufWriter<Box<dyn Write>>,
}

impl FlowLog {
    /// Opens a file for appending; `-` is standard output. Only the owner can read a new file.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened for writing.
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

    /// Opens the file again after the old one was renamed.
    ///
    /// # Errors
    ///
    /// If the file cannot be opened (the old one then stays in use), or if buffered lines cannot be written to the old
    /// one.
    pub fn reopen(&mut self) -> io::Result<()> {
        if let Some(path) = &self.path {
            let file = open(path)?;
            let flushed = self.out.flush();
            self.out = BufWriter::new(Box::new(file));
            flushed?;
        }
        Ok(())
    }

    /// Writes and flushes lines.
    ///
    /// # Errors
    ///
    /// If the file cannot be written to.
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
