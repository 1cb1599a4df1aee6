//! `egress-router top`: a screen of current rates that refreshes itself.

mod count;
mod keys;
mod live;
mod model;
mod panes;
mod snapshot;
mod table;
mod view;

#[cfg(test)]
mod examples;

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    thread,
    time::Duration,
};

use self::{
    keys::INTERVALS,
    model::{Frame, Sort},
    snapshot::Snapshot,
};
use super::{
    duration, instance,
    output::{self, Output},
};

/// Watch the running router: rates by rule, the busiest flows, and packets that are not forwarded
///
/// In a terminal this is a full-screen view; ? shows its keys. Otherwise, and with --once, it takes two samples one
/// interval apart and prints the difference.
///
/// Rates are from clients (>) and to clients (<), in packets and bits per second; bits count from the IP header on. A
/// refresh reads at most 20,000 flows; the title says so if there are more. `NO_COLOR` turns colours off.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  egress-router top
  nsenter --net=/run/netns/pod egress-router top --interval 5
  egress-router top --once --interval 10s
  egress-router top --output json | jq '.flows.busiest[:5][] | {client, server, rates}'
  egress-router top --output json | jq '.outcomes[] | select(.packets_per_second > 0) | .name'")]
pub struct Args {
    #[command(flatten)]
    instance: instance::Selector,

    /// The time between two refreshes: seconds, or with a unit: 500ms, 2m
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
    interval: Duration,

    /// Which flows come first
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = Sort::Rate)]
    sort: Sort,

    /// Print one frame and exit
    #[arg(long)]
    once: bool,

    /// How to print the frame; JSON is always printed once
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let is_live = !args.once && args.output == Output::Text && io::stdout().is_terminal();
    if is_live {
        live::run(args.instance, args.sort, args.interval)?;
    } else {
        let frame = once(&args)?;
        match args.output {
            Output::Json => output::json(&frame)?,
            Output::Text => output::text(&panes::text(frame))?,
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn once(args: &Args) -> anyhow::Result<Frame> {
    let before = Snapshot::take(&args.instance.find()?)?;
    thread::sleep(args.interval);
    let instance = args.instance.find()?;
    let mut frame = Frame::between(Some(&before), &Snapshot::take(&instance)?, args.sort);
    if frame.flows.total.is_none() {
        frame.flows.total = Some(instance.maps.count_flows()?);
    }
    Ok(frame)
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration::parse(text)?;
    let [shortest, longest] = INTERVALS;
    if !(shortest..=longest).contains(&interval) {
        return Err(format!(
            "{text:?} is not between {} and {}",
            humantime::format_duration(shortest),
            humantime::format_duration(longest),
        ));
    }
    Ok(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_has_bounds() {
        for text in ["100ms", "1h"] {
            assert!(interval(text).is_ok(), "{text:?} was refused");
        }
        for text in ["0", "10ms", "2h"] {
            assert!(interval(text).is_err(), "{text:?} was accepted");
        }
    }
}
