//! `egress-router trace`: what the kernel half decides for packets, step by step.

use std::{
    borrow::Cow,
    fmt::Write as _,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use egress_common::{Decision, Ipv4Address, Ipv6Address, Port, Side, Subscriber, TraceFilter};
use ipnet::IpNet;
use serde::Serialize;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    time::{interval, sleep},
};

use super::{
    duration,
    follow::RENEWAL,
    instance,
    output::{self, Output},
    protocol::FlowProtocol,
    subnet, terminal,
};
use crate::{
    dataplane::{FlowReport, FoundFlow, Instance, Listener, PacketReport, TracedPacket},
    net::kernel,
    telemetry::flow_log::WallClock,
};

/// Show what the kernel half decides for packets, step by step
///
/// Shows packets of both directions of a client's flows on arrival, the flow that they belong to or open, their
/// translation, and how they leave or why they do not. It runs until SIGINT. For other packets it only costs the
/// comparison with the filter.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  egress-router trace --client 10.128.0.2
  egress-router trace --client 10.128.0.0/16 --port 8080 --protocol TCP --count 20
  egress-router trace --duration 10s --output json | jq 'select(.verdict == \"drop\")'")]
pub struct Args {
    #[command(flatten)]
    instance: instance::Selector,

    /// Only flows of this client or subnet
    #[arg(long, value_name = "ADDRESS[/LENGTH]", value_parser = subnet::parse)]
    client: Option<IpNet>,

    /// Only flows to this port of the router
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// Only this protocol
    #[arg(long, value_enum, ignore_case = true)]
    protocol: Option<FlowProtocol>,

    /// Stop after this many packets
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// Stop after this time: seconds, or with a unit: 5m
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    duration: Option<Duration>,

    /// How to print the packets; as JSON, one line each
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

impl Args {
    fn filter(&self) -> TraceFilter {
        let mut filter = TraceFilter::ANY;
        filter.port = Port::new(self.port.unwrap_or(0));
        filter.protocol = self.protocol.map_or(0, FlowProtocol::number);
        match self.client {
            None => filter,
            Some(IpNet::V4(clients)) => {
                filter.client(&Ipv4Address::from(clients.addr()), clients.prefix_len())
            }
            Some(IpNet::V6(clients)) => {
                filter.client(&Ipv6Address::from(clients.addr()), clients.prefix_len())
            }
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let instance = args.instance.find()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(trace(&args, instance))?;
    Ok(ExitCode::SUCCESS)
}

async fn trace(args: &Args, instance: Instance) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let subscriber = instance.maps.subscribe(Subscriber::Trace)?;
    let mut printer = Printer::new(&instance, args.output, args.count);
    let mut packets = subscriber.listen(instance.info.identity.cluster_ifindex)?;
    packets.set_filter(&args.filter())?;
    // SAFETY: the listener owns its file descriptor, and keeps it open until it is dropped.
    let mut packets = unsafe { AsyncFd::register_with_interest(packets, Interest::READABLE) }
        .map_err(io::Error::from)?;
    let mut renewals = interval(RENEWAL);
    let end = async {
        match args.duration {
            Some(duration) => sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(end);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            () = &mut end => return Ok(()),
            _ = renewals.tick() => packets.get_mut().renew(kernel::monotonic_ns())?,
            ready = packets.readable_mut() => {
                let mut ready = ready?;
                match printer.print(ready.get_inner_mut())? {
                    Next::Wait => ready.clear_ready(),
                    Next::Read => {}
                    Next::End => return Ok(()),
                }
            }
        }
    }
}

/// How many packets are printed in one batch.
const BATCH: usize = 256;

/// What to do after a batch.
enum Next {
    /// There may be more.
    Read,
    /// There are no more for now.
    Wait,
    /// As many as requested are printed.
    End,
}

struct Printer {
    /// The names of both interfaces, by side.
    interfaces: [String; 2],
    output: Output,
    /// The width of standard output, if it is a terminal.
    columns: Option<usize>,
    /// How many are still to be printed; `None` for any number.
    left: Option<u64>,
}

impl Printer {
    fn new(instance: &Instance, output: Output, left: Option<u64>) -> Self {
        let identity = &instance.info.identity;
        let name = |index| {
            let name = nix::net::if_::if_indextoname(index).ok();
            name.and_then(|name| name.into_string().ok())
                .unwrap_or_else(|| format!("interface {index}"))
        };
        Self {
            interfaces: [
                name(identity.cluster_ifindex),
                name(identity.egress_ifindex),
            ],
            output,
            columns: terminal::columns(),
            left,
        }
    }

    /// Prints a batch of packets.
    fn print(&mut self, packets: &mut Listener) -> anyhow::Result<Next> {
        let clock = WallClock::now();
        let mut out = io::BufWriter::new(io::stdout().lock());
        let mut next = Next::Read;
        for _ in 0..BATCH {
            if self.left == Some(0) {
                next = Next::End;
                break;
            }
            let Some(packet) = packets.next_record(TracedPacket::read) else {
                next = Next::Wait;
                break;
            };
            let Some(packet) = packet else { continue };
            match self.output {
                Output::Json => {
                    serde_json::to_writer(&mut out, &self.line(&packet, &clock))
                        .map_err(io::Error::from)?;
                    out.write_all(b"\n")?;
                }
                Output::Text => {
                    let text = self.text(&packet, &clock);
                    out.write_all(terminal::wrap(&text, self.columns, 4).as_bytes())?;
                    out.write_all(b"\n")?;
                }
            }
            self.left = self.left.map(|left| left - 1);
        }
        if self.left == Some(0) {
            next = Next::End;
        }
        out.flush()?;
        let lost = packets.take_lost()?;
        if lost > 0 {
            // Not on standard output, which a program may read.
            eprintln!(
                "warning: {lost} packets are not shown: they arrived faster than they were read"
            );
        }
        Ok(next)
    }

    fn line<'p>(&'p self, packet: &'p TracedPacket, clock: &WallClock) -> Line<'p> {
        let outcome = packet.outcome();
        Line {
            time: clock.format(packet.time_ns),
            interface: &self.interfaces[packet.side as usize],
            length: packet.length,
            packet: packet.packet.as_ref(),
            flow_found: match packet.found {
                FoundFlow::Found { .. } => "found",
                FoundFlow::Opened => "opened",
                FoundFlow::Reopened => "reopened",
                FoundFlow::None => "none",
            },
            packets_before: match packet.found {
                FoundFlow::Found { packets_before } => Some(packets_before),
                _ => None,
            },
            flow: packet.flow.as_ref(),
            verdict: packet.verdict(),
            description: outcome.as_ref().map(|outcome| outcome.description),
            outcome: outcome.map(|outcome| outcome.name),
            next_hop_known: match packet.decision {
                Decision::Forwarded { is_addressed } => Some(is_addressed),
                Decision::Refused(_) | Decision::Unknown(_) => None,
            },
        }
    }

    fn text(&self, traced: &TracedPacket, clock: &WallClock) -> String {
        let TracedPacket {
            time_ns,
            side,
            packet,
            length,
            found,
            flow,
            decision: _,
        } = traced;
        let mut text = format!(
            "{} {} {}, {length} bytes",
            clock.format(*time_ns),
            self.interfaces[*side as usize],
            packet
                .as_ref()
                .map_or_else(|| "unreadable headers".to_owned(), headers),
        );
        let mut step = |line: &str| {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n  {line}");
        };
        step(&flow_step(*found, flow.as_ref(), *side));
        match traced.outcome() {
            None => {
                if let Some(flow) = flow {
                    step(&translation(flow, *side));
                }
                let is_addressed = Decision::Forwarded { is_addressed: true };
                let by = if traced.decision == is_addressed {
                    "to the known next hop"
                } else {
                    "the kernel looks up the next hop"
                };
                let out = &self.interfaces[side.opposite() as usize];
                step(&format!("forward: out of {out}, {by}"));
            }
            Some(outcome) => step(&format!(
                "{}: {}: {}",
                outcome.verdict, outcome.name, outcome.description
            )),
        }
        text
    }
}

fn headers(packet: &PacketReport) -> String {
    let PacketReport {
        protocol,
        source,
        destination,
        flags,
        ttl,
    } = packet;
    let flags = if flags.is_empty() {
        String::new()
    } else {
        format!(" [{}]", flags.join(" "))
    };
    format!("{protocol} {source} → {destination}{flags}, TTL {ttl}")
}

fn flow_step(found: FoundFlow, flow: Option<&FlowReport>, side: Side) -> String {
    let what = match found {
        FoundFlow::None => {
            return match side {
                Side::Cluster => "flow: none, and none is opened".to_owned(),
                Side::Egress => "flow: none".to_owned(),
            };
        }
        FoundFlow::Found { packets_before } => {
            format!("found, {} before this one", output::packets(packets_before))
        }
        FoundFlow::Opened => "opened by this packet".to_owned(),
        FoundFlow::Reopened => "reopened by this packet".to_owned(),
    };
    match flow {
        None => format!("flow: {what}, but gone by now"),
        Some(flow) => format!(
            "flow: {what}; rule {}, {} of {}",
            flow.rule, flow.state, flow.client
        ),
    }
}

fn translation(flow: &FlowReport, side: Side) -> String {
    match side {
        Side::Cluster => format!("becomes: {} → {}", flow.reserved, flow.server),
        Side::Egress => format!("becomes: {} → {}", flow.router, flow.client),
    }
}

/// A packet as JSON.
#[derive(Serialize)]
struct Line<'p> {
    time: String,
    interface: &'p str,
    length: u32,
    packet: Option<&'p PacketReport>,
    flow_found: &'static str,
    packets_before: Option<u64>,
    flow: Option<&'p FlowReport>,
    verdict: &'static str,
    outcome: Option<Cow<'static, str>>,
    description: Option<&'static str>,
    next_hop_known: Option<bool>,
}
