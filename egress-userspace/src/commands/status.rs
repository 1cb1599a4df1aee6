//! `egress-router status`: one screen.

use std::{fmt::Write as _, net::IpAddr, process::ExitCode};

use egress_userspace::{
    dataplane::{AttachMode, Instance, OutcomeReport},
    kernel,
};
use serde::Serialize;

use super::{
    instance,
    output::{self, Output},
};

/// Show the running router on one screen
///
/// Where and how it is attached, how many rules and flows it has, and what it did not forward, by reason.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  egress-router status
  nsenter --net=/run/netns/pod egress-router status
  egress-router status --output json | jq '.outcomes[] | select(.packets > 0)'")]
pub struct Args {
    #[command(flatten)]
    instance: instance::Selector,

    /// How to print the status
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Status {
    pid: u32,
    /// Whether the process that started the router is still there; the dataplane may go on without.
    process_running: bool,
    uptime_seconds: u64,
    attached: AttachMode,
    /// Who ends idle flows: `kernel` or `userspace`.
    expiry: &'static str,
    cluster_interface: String,
    egress_interface: String,
    reserved_addresses: Vec<IpAddr>,
    fallback: Option<IpAddr>,
    rules: usize,
    flows: usize,
    max_flows: u32,
    /// Flows that were ended to make room for others.
    flows_evicted: u64,
    /// How changes of the spec went since the dataplane was started.
    reloads: Reloads,
    /// Packets that were not forwarded, by outcome.
    outcomes: Vec<OutcomeReport>,
}

#[derive(Debug, Serialize)]
struct Reloads {
    applied: u32,
    refused: u32,
    /// How long the rules have been in force.
    rules_age_seconds: u64,
    /// Why the last change was refused, if none was applied since.
    error: Option<String>,
}

impl From<&egress_common::Reloads> for Reloads {
    fn from(reloads: &egress_common::Reloads) -> Self {
        let age_ns = kernel::monotonic_ns().saturating_sub(reloads.applied_ns);
        Self {
            applied: reloads.applied,
            refused: reloads.refused,
            rules_age_seconds: age_ns / 1_000_000_000,
            error: reloads.error().map(ToOwned::to_owned),
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let status = Status::of(&args.instance.find()?)?;
    match args.output {
        Output::Json => output::json(&status)?,
        Output::Text => output::text(&status.text())?,
    }
    Ok(ExitCode::SUCCESS)
}

fn interface_name(index: u32) -> String {
    nix::net::if_::if_indextoname(index)
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| format!("interface {index}, which is gone"))
}

impl Status {
    fn of(instance: &Instance) -> anyhow::Result<Self> {
        let config = &instance.config;
        let common = config.rule_set(config.rules_in_force());
        let rules = instance.maps.rules()?;
        Ok(Self {
            pid: config.pid,
            process_running: instance.is_running(),
            uptime_seconds: kernel::monotonic_ns().saturating_sub(config.started_ns)
                / 1_000_000_000,
            attached: instance.attach_mode(),
            expiry: if config.kernel_expiry != 0 {
                "kernel"
            } else {
                "userspace"
            },
            cluster_interface: interface_name(config.cluster_ifindex),
            egress_interface: interface_name(config.egress_ifindex),
            reserved_addresses: [common.reserved_v4.into(), common.reserved_v6.into()]
                .into_iter()
                .filter(|address: &IpAddr| !address.is_unspecified())
                .collect(),
            fallback: rules
                .iter()
                .find(|rule| rule.port.is_none())
                .map(|fallback| fallback.destination.address),
            rules: rules.iter().filter(|rule| rule.port.is_some()).count(),
            flows: instance.maps.count_flows()?,
            max_flows: config.max_flows,
            flows_evicted: instance.maps.count_evicted()?,
            reloads: (&config.reloads).into(),
            outcomes: instance.maps.outcomes()?,
        })
    }

    fn text(&self) -> String {
        let process = if self.process_running {
            ""
        } else {
            " (gone; the dataplane goes on by itself)"
        };
        let reserved: Vec<_> = self
            .reserved_addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        let evicted = match self.flows_evicted {
            0 => String::new(),
            number => format!(", {number} ended early to make room"),
        };
        let mut text = format!(
            "process    {}{process}, up {}\n\
             attached   {} on {} (cluster) and {} (egress)\n\
             expiry     by the {}\n\
             reserved   {}\n\
             rules      {}{}, in force for {}\n\
             flows      {} of {}{}\n",
            self.pid,
            output::duration(self.uptime_seconds),
            self.attached,
            self.cluster_interface,
            self.egress_interface,
            self.expiry,
            reserved.join(", "),
            self.rules,
            self.fallback
                .map_or_else(String::new, |address| format!(", else to {address}")),
            output::duration(self.reloads.rules_age_seconds),
            self.flows,
            self.max_flows,
            evicted,
        );
        if let Some(error) = &self.reloads.error {
            let _ = writeln!(
                text,
                "\nThe spec has changed, but is refused, and those rules stay:\n  {error}"
            );
        }
        for (is_pass, title) in [(false, "dropped"), (true, "left to the pod's own stack")] {
            let rows: Vec<_> = self
                .outcomes
                .iter()
                .filter(|outcome| (outcome.verdict == "pass") == is_pass && outcome.packets > 0)
                .map(|outcome| {
                    [
                        format!("  {}", outcome.packets),
                        outcome.name.to_owned(),
                        outcome.description.to_owned(),
                    ]
                })
                .collect();
            if rows.is_empty() {
                let _ = writeln!(text, "{title}: nothing");
            } else {
                let total: u64 = self
                    .outcomes
                    .iter()
                    .filter(|outcome| (outcome.verdict == "pass") == is_pass)
                    .map(|o| o.packets)
                    .sum();
                let packets = if total == 1 { "packet" } else { "packets" };
                let _ = writeln!(text, "{title}: {total} {packets}");
                let _ = writeln!(
                    text,
                    "{}",
                    output::table(["  PACKETS", "REASON", "MEANING"], 3, rows)
                );
            }
        }
        text.truncate(text.trim_end().len());
        text
    }
}
