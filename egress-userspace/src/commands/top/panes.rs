//! What stands in each pane, on the screen as well as in plain text.

use egress_userspace::dataplane::RuleReport;

use super::{
    super::{duration, output, rules},
    model::{FlowRow, Frame, OutcomeRow, Rate, Rates, RuleRow, Sort},
    table::{Column, Table},
};

/// The parts of the frame that scroll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    Rules,
    Flows,
    Drops,
}

/// What is written where no rate is known yet.
const UNKNOWN: &str = "-";

const RULES: &[Column] = &[
    Column::number("RULE"),
    Column::text("PORT"),
    Column::endpoint("DESTINATION"),
    Column::number("NEW/s").dispensable(2),
    Column::number("PKT/s >").dispensable(1),
    Column::number("BIT/s >"),
    Column::number("PKT/s <").dispensable(1),
    Column::number("BIT/s <"),
    Column::number("FLOWS").dispensable(3),
    Column::number("BYTES").dispensable(4),
];

const FLOWS: &[Column] = &[
    Column::text("PROTO").dispensable(2),
    Column::endpoint("CLIENT"),
    Column::endpoint("SERVER"),
    Column::number("BIT/s >"),
    Column::number("BIT/s <"),
    Column::number("BYTES").dispensable(1),
    Column::number("PKT/s").dispensable(4),
    Column::number("AGE").dispensable(5),
    Column::number("RULE").dispensable(6),
    Column::text("STATE").dispensable(7),
    Column::text("RESERVED").dispensable(8),
];

const DROPS: &[Column] = &[
    Column::number("PKT/s"),
    Column::number("PACKETS"),
    Column::text("VERDICT").dispensable(2),
    Column::text("REASON").shrinks_to(12),
    Column::text("MEANING").shrinks_to(16).dispensable(1),
];

impl Pane {
    /// From the top down.
    pub const ALL: [Self; 3] = [Self::Rules, Self::Flows, Self::Drops];

    /// The next one, around.
    pub fn next(self) -> Self {
        Self::ALL[(self as usize + 1) % Self::ALL.len()]
    }

    /// The one before, around.
    pub fn previous(self) -> Self {
        Self::ALL[(self as usize + Self::ALL.len() - 1) % Self::ALL.len()]
    }

    /// What stands above it.
    pub fn title(self, frame: &Frame) -> String {
        match self {
            Self::Rules => format!("Rules: {}", frame.rules.len()),
            Self::Flows => flows_title(frame),
            Self::Drops => "Not forwarded, by reason".to_owned(),
        }
    }

    /// What is said where it has no rows.
    pub fn if_empty(self) -> &'static str {
        match self {
            Self::Rules => "no rules",
            Self::Flows => "no flows",
            Self::Drops => "nothing: every packet was forwarded",
        }
    }

    /// Whether something goes wrong now in this row of it: packets are lost.
    pub fn is_alarming(self, frame: &Frame, row: usize) -> bool {
        let outcome = (self == Self::Drops)
            .then(|| frame.outcomes.get(row))
            .flatten();
        outcome.is_some_and(|row| {
            !row.is_pass() && row.packets_per_second.is_some_and(|rate| rate > 0.0)
        })
    }

    /// Its rows.
    pub fn table(self, frame: &Frame) -> Table {
        let (columns, rows) = match self {
            Self::Rules => (RULES, frame.rules.iter().map(rule).collect()),
            Self::Flows => (FLOWS, frame.flows.busiest.iter().map(flow).collect()),
            Self::Drops => (DROPS, frame.outcomes.iter().map(outcome).collect()),
        };
        Table { columns, rows }
    }
}

/// Such as `Flows: 200 of the first 20,000 of 1,000,000, by bytes per second`.
fn flows_title(frame: &Frame) -> String {
    let flows = &frame.flows;
    let (shown, looked_at) = (flows.busiest.len(), output::grouped(flows.looked_at as u64));
    let number = match flows.total {
        Some(total) if total > flows.looked_at => {
            format!(
                "{shown} of the first {looked_at} of {}",
                output::grouped(total as u64)
            )
        }
        None => format!("{shown} of the first {looked_at}, there are more"),
        Some(_) if shown < flows.looked_at => format!("{shown} of {looked_at}"),
        Some(_) => shown.to_string(),
    };
    // Without rates the totals decide.
    let order = match flows.sort {
        Sort::Rate if frame.elapsed_seconds.is_none() => Sort::Bytes,
        sort => sort,
    };
    format!("Flows: {number}, {}", order.title())
}

/// The lines above the panes: what they are about, and what there is to say.
pub fn header(frame: &Frame) -> Vec<(&'static str, String)> {
    let router = &frame.router;
    let process = if router.process_running {
        ""
    } else {
        " GONE (the dataplane goes on by itself)"
    };
    let evicted = match router.flows_evicted {
        0 => String::new(),
        number => format!(", {} ended early to make room", output::grouped(number)),
    };
    let mut lines = vec![
        (
            "router",
            format!(
                "up {}, process {}{process}, {} on {} and {}",
                duration::short(router.uptime_seconds),
                router.pid,
                router.attached,
                router.cluster_interface,
                router.egress_interface,
            ),
        ),
        ("flows", format!("{}{evicted}", fill(frame))),
        ("traffic", traffic(frame)),
        (
            "rules",
            format!(
                "in force for {}, {} applied, {} refused",
                duration::short(router.reloads.rules_age_seconds),
                changes(router.reloads.applied),
                router.reloads.refused,
            ),
        ),
    ];
    if let Some(error) = &router.reloads.error {
        // An error may have lines, of which a header has one.
        let error: Vec<_> = error.split_whitespace().collect();
        lines.push(("REFUSED", error.join(" ")));
    }
    lines
}

fn changes(number: u32) -> String {
    format!(
        "{number} {}",
        if number == 1 { "change" } else { "changes" }
    )
}

/// How full the table is, with a bar of ten.
fn fill(frame: &Frame) -> String {
    let max = u64::from(frame.router.max_flows);
    let (total, more) = match frame.flows.total {
        Some(total) => (total as u64, ""),
        None => (frame.flows.looked_at as u64, "more than "),
    };
    let percent = total * 100 / max.max(1);
    let filled = usize::try_from(percent.min(100).div_ceil(10)).unwrap_or(10);
    format!(
        "{more}{} of {} [{}{}] {percent}%",
        output::grouped(total),
        output::grouped(max),
        "#".repeat(filled),
        ".".repeat(10 - filled),
    )
}

fn traffic(frame: &Frame) -> String {
    let (Some(Rates { original, reply }), Some(flows)) = (frame.rates, frame.flows_per_second)
    else {
        return "rates come with the next refresh".to_owned();
    };
    let direction = |rate: Rate| {
        format!(
            "{} pkt/s {} bit/s",
            output::rate(rate.packets_per_second),
            output::rate(rate.bits_per_second)
        )
    };
    format!(
        "> {}   < {}   {} new flows/s",
        direction(original),
        direction(reply),
        output::rate(flows)
    )
}

fn rule(row: &RuleRow) -> Vec<String> {
    let RuleReport {
        id,
        destination,
        flows,
        original,
        reply,
        ..
    } = &row.rule;
    let (original_rate, reply_rate) = (
        row.rates.map(|it| it.original),
        row.rates.map(|it| it.reply),
    );
    vec![
        id.to_string(),
        rules::print::port(&row.rule),
        destination.to_string(),
        known(row.flows_per_second),
        known(original_rate.map(|rate| rate.packets_per_second)),
        known(original_rate.map(|rate| rate.bits_per_second)),
        known(reply_rate.map(|rate| rate.packets_per_second)),
        known(reply_rate.map(|rate| rate.bits_per_second)),
        flows.to_string(),
        output::bytes(original.bytes.saturating_add(reply.bytes)),
    ]
}

fn flow(row: &FlowRow) -> Vec<String> {
    let FlowRow { flow, rates } = row;
    vec![
        flow.protocol.clone(),
        flow.client.to_string(),
        flow.server.to_string(),
        known(rates.map(|it| it.original.bits_per_second)),
        known(rates.map(|it| it.reply.bits_per_second)),
        output::bytes(flow.original.bytes.saturating_add(flow.reply.bytes)),
        known(rates.map(|it| it.original.packets_per_second + it.reply.packets_per_second)),
        duration::short(flow.age_seconds),
        flow.rule.to_string(),
        flow.state.to_owned(),
        flow.reserved.to_string(),
    ]
}

fn outcome(row: &OutcomeRow) -> Vec<String> {
    vec![
        known(row.packets_per_second),
        row.outcome.packets.to_string(),
        row.outcome.verdict.to_owned(),
        row.outcome.name.to_owned(),
        row.outcome.description.to_owned(),
    ]
}

fn known(rate: Option<f64>) -> String {
    rate.map_or_else(|| UNKNOWN.to_owned(), output::rate)
}
