//! `egress-router status`: the running router on one screen.

use std::{fmt::Write as _, net::IpAddr, process::ExitCode};

use serde::Serialize;

use super::{
    duration, instance,
    output::{self, Column, Narrow, Output},
    terminal,
};
use crate::{
    dataplane::{AttachMode, Instance, OutcomeReport},
    net::kernel,
};

/// Show the running router on one screen
///
/// Shows where and how the router is attached, how many rules and flows it has, and what it did not forward, by reason.
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

const OUTCOMES: &[Column] = &[
    Column::text("  PACKETS"),
    Column::text("REASON"),
    Column::text("MEANING"),
];
/// The width of the summary's first column.
const NAME_WIDTH: usize = 11;

/// The process, the interfaces and the limits of a router.
#[derive(Clone, Debug, Serialize)]
pub struct Router {
    pub pid: u32,
    /// Whether the process that started the router still runs. The dataplane works without it.
    pub process_running: bool,
    pub uptime_seconds: u64,
    pub attached: AttachMode,
    pub cluster_interface: String,
    pub egress_interface: String,
    /// The capacity of the flow table of each family.
    pub max_flows: u32,
    /// Flows that were evicted from a full table.
    pub flows_evicted: u64,
    /// Reloads since the dataplane was started.
    pub reloads: Reloads,
}

#[derive(Debug, Serialize)]
struct Status {
    #[serde(flatten)]
    router: Router,
    /// Who ends idle flows: `kernel` or `userspace`.
    expiry: &'static str,
    reserved_addresses: Vec<IpAddr>,
    fallback: Option<IpAddr>,
    rules: usize,
    flows: usize,
    /// Packets that were not forwarded, by outcome.
    outcomes: Vec<OutcomeReport>,
}

/// Changes of the spec, and what became of them.
#[derive(Clone, Debug, Serialize)]
pub struct Reloads {
    pub applied: u32,
    pub refused: u32,
    /// How long the rules have been in force.
    pub rules_age_seconds: u64,
    /// Why the last change was refused; `None` if it was applied.
    pub error: Option<String>,
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
        Output::Text => output::text(&status.text(terminal::columns()))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The name of the interface with this index.
fn interface_name(index: u32) -> String {
    nix::net::if_::if_indextoname(index)
        .ok()
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| format!("interface {index}, which is gone"))
}

impl Router {
    /// Its state at the time `now_ns` of `CLOCK_MONOTONIC`.
    pub fn of(instance: &Instance, now_ns: u64) -> anyhow::Result<Self> {
        let info = &instance.info;
        Ok(Self {
            pid: info.identity.pid,
            process_running: instance.is_running(),
            uptime_seconds: now_ns.saturating_sub(info.identity.started_ns) / 1_000_000_000,
            attached: instance.attach_mode(),
            cluster_interface: interface_name(info.identity.cluster_ifindex),
            egress_interface: interface_name(info.identity.egress_ifindex),
            max_flows: info.max_flows,
            flows_evicted: instance.maps.count_evicted()?,
            reloads: (&info.reloads).into(),
        })
    }
}

impl Status {
    fn of(instance: &Instance) -> anyhow::Result<Self> {
        let (info, config) = (&instance.info, &instance.config);
        let common = config.rule_set(config.rules_in_force());
        let rules = instance.maps.rules()?;
        Ok(Self {
            router: Router::of(instance, kernel::monotonic_ns())?,
            expiry: if info.kernel_expiry != 0 {
                "kernel"
            } else {
                "userspace"
            },
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
            outcomes: instance.maps.outcomes()?,
        })
    }

    /// The status as text, wrapped to `columns`.
    fn text(&self, columns: Option<usize>) -> String {
        let mut text = terminal::wrap(&self.summary(), columns, NAME_WIDTH);
        if let Some(error) = &self.router.reloads.error {
            let error = terminal::wrap(&refusal(error), columns, 4);
            let _ = write!(text, "\n\n{error}\n");
        }
        for (verdicts, title) in [
            (&["drop", "reject"][..], "dropped"),
            (&["pass"], "left to the pod's own stack"),
        ] {
            let outcomes = self.outcomes(title, verdicts, columns);
            let outcomes = outcomes.unwrap_or_else(|| format!("{title}: nothing"));
            let _ = write!(text, "\n{outcomes}");
        }
        let title = "not forwarded, for reasons that this version does not know";
        if let Some(outcomes) = self.outcomes(title, &["unknown"], columns) {
            let _ = write!(text, "\n{outcomes}");
        }
        text
    }

    /// The lines before the outcomes.
    fn summary(&self) -> String {
        let router = &self.router;
        let process = if router.process_running {
            ""
        } else {
            " (gone; the dataplane keeps working)"
        };
        let reserved: Vec<_> = self
            .reserved_addresses
            .iter()
            .map(ToString::to_string)
            .collect();
        let evicted = match router.flows_evicted {
            0 => String::new(),
            number => format!(", {number} evicted"),
        };
        format!(
            "process    {}{process}, up {}\n\
             attached   {} on {} (cluster) and {} (egress)\n\
             expiry     by the {}\n\
             reserved   {}\n\
             rules      {}{}, in force for {}\n\
             flows      {} of {}{}",
            router.pid,
            duration::short(router.uptime_seconds),
            router.attached,
            router.cluster_interface,
            router.egress_interface,
            self.expiry,
            reserved.join(", "),
            self.rules,
            self.fallback
                .map_or_else(String::new, |address| format!(", else to {address}")),
            duration::short(router.reloads.rules_age_seconds),
            self.flows,
            router.max_flows,
            evicted,
        )
    }

    /// The outcomes with these verdicts; `None` if no packet had one.
    fn outcomes(&self, title: &str, verdicts: &[&str], columns: Option<usize>) -> Option<String> {
        let of_kind =
            |outcome: &&OutcomeReport| verdicts.contains(&outcome.verdict) && outcome.packets > 0;
        let outcomes = self.outcomes.iter().filter(of_kind);
        let total: u64 = outcomes.clone().map(|outcome| outcome.packets).sum();
        if total == 0 {
            return None;
        }
        let rows = outcomes.map(|outcome| {
            vec![
                format!("  {}", outcome.packets),
                outcome.name.to_string(),
                outcome.description.to_owned(),
            ]
        });
        let mut lines = vec![format!("{title}: {}", output::packets(total))];
        lines.extend(output::table(OUTCOMES, rows, columns, Narrow::Wrap));
        Some(lines.join("\n"))
    }
}

/// The message about a refused change of the spec. The map keeps `error` only up to some length.
fn refusal(error: &str) -> String {
    // The error is cut off between characters.
    let is_cut = error.len() + char::MAX_LEN_UTF8 > egress_common::Reloads::message("").len();
    let cut = if is_cut { " …" } else { "" };
    let error = error.replace('\n', "\n  ");
    format!("The changed spec was refused, and the rules stay as they are:\n  {error}{cut}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status() -> Status {
        let outcome = |name: &'static str, verdict, packets| OutcomeReport {
            name: name.into(),
            verdict,
            packets,
            description: "A frame on the cluster interface that is not for the interface itself: with a VLAN tag, or for \
                          another MAC.",
        };
        Status {
            router: Router {
                pid: 4_194_303,
                process_running: false,
                uptime_seconds: 400_000,
                attached: AttachMode::Tcx,
                cluster_interface: "eth0".to_owned(),
                egress_interface: "net1".to_owned(),
                max_flows: 262_144,
                flows_evicted: 1_000_000,
                reloads: Reloads {
                    applied: 1,
                    refused: 1,
                    rules_age_seconds: 400_000,
                    error: Some(
                        "router.yaml: 2 errors\n  spec.addresses: a\n  spec.redirect.redirectRules[12].destinationIP: \"x\" \
                         is not an address, and much more is to be said about that"
                            .to_owned(),
                    ),
                },
            },
            expiry: "kernel",
            reserved_addresses: vec![
                "192.168.12.99".parse().unwrap(),
                "2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap(),
            ],
            fallback: Some("2001:db8:1234:5678:9abc:def0:1234:5679".parse().unwrap()),
            rules: 1000,
            flows: 100_000,
            outcomes: vec![
                outcome("unrelated_icmp_error", "drop", 1_000_000_000),
                outcome("no_free_port", "drop", 0),
                outcome("other_frame", "pass", 1),
                outcome("unknown_63", "unknown", 2),
            ],
        }
    }

    #[test]
    fn nothing_is_wider_than_the_terminal_and_each_item_begins_a_line() {
        for columns in [80, 200] {
            let text = status().text(Some(columns));
            for line in text.lines() {
                assert!(output::display_width(line) <= columns, "{text}");
            }
            for start in [
                "process ",
                "attached ",
                "  router.yaml: 2 errors",
                "    spec.addresses: a",
                "    spec.redirect.redirectRules[12]",
                "dropped: 1000000000 packets",
                "  1000000000  unrelated_icmp_error  A frame",
                "left to the pod's own stack: 1 packet",
                "not forwarded, for reasons that this version does not know: 2 packets",
            ] {
                let is_there = text.lines().any(|line| line.starts_with(start));
                assert!(is_there, "no {start:?} in\n{text}");
            }
        }
    }

    #[test]
    fn an_error_that_was_cut_off_ends_in_dots() {
        assert!(!refusal("an error").contains('…'));
        let kept = egress_common::Reloads::message(&"é".repeat(1000));
        let kept = str::from_utf8(&kept).unwrap();
        assert!(refusal(kept).ends_with("é …"));
    }
}
