//! `egress-router flows --follow`: prints flows as they are opened and end.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use egress_common::Subscriber;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    time::interval,
};

use super::{
    output::{self, Output},
    terminal,
};
use crate::{
    dataplane::Instance,
    net::kernel,
    telemetry::flow_log::{self, FlowLine, Line},
};

/// How often a command renews its lease as a subscriber.
pub const RENEWAL: Duration = Duration::from_secs(1);

/// Prints events until SIGINT or SIGTERM.
pub fn follow(instance: Instance, output: Output) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(print_events(instance, output))?;
    Ok(ExitCode::SUCCESS)
}

async fn print_events(instance: Instance, output: Output) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let subscriber = instance.maps.subscribe(Subscriber::Follow)?;
    let events = subscriber.listen(instance.info.identity.cluster_ifindex)?;
    // SAFETY: the listener owns its file descriptor, and keeps it open until it is dropped.
    let mut events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }
        .map_err(io::Error::from)?;
    let mut renewals = interval(RENEWAL);
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
            _ = renewals.tick() => events.get_mut().renew(kernel::monotonic_ns())?,
            ready = events.readable_mut() => {
                let mut ready = ready?;
                let (lines, is_empty) = flow_log::read_batch(ready.get_inner_mut())?;
                if is_empty {
                    ready.clear_ready();
                }
                print(&lines, output, terminal::columns())?;
            }
        }
    }
}

fn print(lines: &[Line], output: Output, columns: Option<usize>) -> io::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    for line in lines {
        match output {
            Output::Json => serde_json::to_writer(&mut out, line)?,
            Output::Text => out.write_all(terminal::wrap(&text(line), columns, 4).as_bytes())?,
        }
        out.write_all(b"\n")?;
    }
    out.flush()
}

fn text(line: &Line) -> String {
    let (sign, line) = match line {
        Line::Lost { time, records } => {
            return format!(
                "{time} ! {records} events were lost: they arrived faster than they were read"
            );
        }
        Line::Start(line) => ('+', line),
        Line::End(line) => ('-', line),
    };
    let FlowLine {
        time,
        reason,
        protocol,
        client,
        router,
        reserved,
        server,
        rule,
        state,
        duration_seconds,
        original,
        reply,
        ..
    } = line;
    let flow = format!(
        "{time} {sign} {protocol:4} {client} → {router} ⇒ {reserved} → {server} rule {rule}"
    );
    match reason {
        None => flow,
        Some(reason) => format!(
            "{flow}: {reason}, {state}, {duration_seconds:.3}s, > {}, {}, < {}, {}",
            output::packets(original.packets),
            output::bytes(original.bytes),
            output::packets(reply.packets),
            output::bytes(reply.bytes),
        ),
    }
}
