//! The content of the header and the panes, for the screen and for plain text.

use super::{
    super::{
        duration,
        output::{self, Column as Shown},
        rules,
    },
    model::{FlowRow, Frame, OutcomeRow, Rate, Rates, RuleRow, Sort},
    table::{Column, Cut, Table},
};

/// The parts of the frame that scroll.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pane {
    Rules,
    Flows,
    Drops,
}

/// How many flows the plain text shows. JSON has more.
const PRINTED_FLOWS: usize = 20;

const RULES: &[Column] = &[
    Column(Shown::number("RULE"), 0, Cut::Never),
    Column(Shown::text("PORT"), 0, Cut::Never),
    Column(Shown::text("DESTINATION"), 0, Cut::ENDPOINT),
    Column(Shown::number("NEW/s"), 2, Cut::Never),
    Column(Shown::number("PKT/s >"), 1, Cut::Never),
    Column(Shown::number("BIT/s >"), 0, Cut::Never),
    Column(Shown::number("PKT/s <"), 1, Cut::Never),
    Column(Shown::number("BIT/s <"), 0, Cut::Never),
    Column(Shown::number("FLOWS"), 3, Cut::Never),
    Column(Shown::number("BYTES"), 4, Cut::Never),
];

const FLOWS: &[Column] = &[
    Column(Shown::text("PROTO"), 2, Cut::Never),
    Column(Shown::text("CLIENT"), 0, Cut::ENDPOINT),
    Column(Shown::text("SERVER"), 0, Cut::ENDPOINT),
    Column(Shown::number("BIT/s >"), 0, Cut::Never),
    Column(Shown::number("BIT/s <"), 0, Cut::Never),
    Column(Shown::number("BYTES"), 1, Cut::Never),
    Column(Shown::number("PKT/s"), 4, Cut::Never),
    Column(Shown::number("AGE"), 5, Cut::Never),
    Column(Shown::number("RULE"), 6, Cut::Never),
    Column(Shown::text("STATE"), 7, Cut::Never),
    Column(Shown::text("RESERVED"), 8, Cut::Never),
];

const DROPS: &[Column] = &[
    Column(Shown::number("PKT/s"), 0, Cut::Never),
    Column(Shown::number("PACKETS"), 0, Cut::Never),
    Column(Shown::text("VERDICT"), 2, Cut::Never),
    Column(Shown::text("REASON"), 0, Cut::End(12)),
    Column(Shown::text("MEANING"), 1, Cut::End(16)),
];

impl Pane {
    /// From the top down.
    pub const ALL: [Self; 3] = [Self::Rules, Self::Flows, Self::Drops];

    /// The pane that many places below. The first follows the last.
    pub fn below(self, panes: usize) -> Self {
        Self::ALL[(self as usize + panes) % Self::ALL.len()]
    }

    /// The title above its rows.
    pub fn title(self, frame: &Frame) -> String {
        match self {
            Self::Rules => format!("Rules: {}", frame.rules.len()),
            Self::Flows => flows_title(frame),
            Self::Drops => "Not forwarded, by reason".to_owned(),
        }
    }

    /// Shown in place of rows if there are none.
    pub fn if_empty(self) -> &'static str {
        match self {
            Self::Rules => "no rules",
            Self::Flows => "no flows",
            Self::Drops => "nothing: every packet was forwarded",
        }
    }

    /// Whether packets are being lost for the reason in this row.
    pub fn is_alarming(self, frame: &Frame, row: usize) -> bool {
        let is_lost = |row: &OutcomeRow| !row.is_pass() && row.packets_per_second > Some(0.0);
        self == Self::Drops && frame.outcomes.get(row).is_some_and(is_lost)
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

/// The whole frame as plain text.
pub fn text(mut frame: Frame) -> String {
    frame.flows.busiest.truncate(PRINTED_FLOWS);
    let mut parts = Vec::new();
    for Header { name, value, .. } in header(&frame) {
        parts.push(format!("{name:<8} {value}"));
    }
    for pane in Pane::ALL {
        let table = pane.table(&frame);
        parts.push(format!("\n{}", pane.title(&frame)));
        parts.push(if table.rows.is_empty() {
            pane.if_empty().to_owned()
        } else {
            table.text()
        });
    }
    parts.join("\n")
}

/// The title of the flows, such as `Flows: 200 of the first 20,000 of 1,000,000, by bytes per second`.
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

/// A line above the panes.
pub struct Header {
    pub name: &'static str,
    pub value: String,
    /// Whether something is wrong.
    pub is_alarming: bool,
}

/// The lines above the panes.
pub fn header(frame: &Frame) -> Vec<Header> {
    let router = &frame.router;
    let mut lines = Vec::new();
    let mut line = |name, is_alarming, value| {
        lines.push(Header {
            name,
            value,
            is_alarming,
        });
    };
    if let Some(gone) = &frame.gone {
        line("GONE", true, gone.clone());
    }
    let process = if router.process_running {
        ""
    } else {
        " GONE (the dataplane keeps working)"
    };
    let up = format!(
        "up {}, process {}{process}, {} on {} and {}",
        duration::short(router.uptime_seconds),
        router.pid,
        router.attached,
        router.cluster_interface,
        router.egress_interface,
    );
    line("router", !router.process_running, up);
    let evicted = match router.flows_evicted {
        0 => String::new(),
        number => format!(", {} evicted", output::grouped(number)),
    };
    line("flows", false, fill(frame) + &evicted);
    line("traffic", false, traffic(frame));
    let reloads = &router.reloads;
    let changes = format!(
        "in force for {}, {} {} applied, {} refused",
        duration::short(reloads.rules_age_seconds),
        reloads.applied,
        if reloads.applied == 1 {
            "change"
        } else {
            "changes"
        },
        reloads.refused,
    );
    line("rules", false, changes);
    if let Some(error) = &reloads.error {
        // An error may have several lines, a header has one.
        let error: Vec<_> = error.split_whitespace().collect();
        line("REFUSED", true, error.join(" "));
    }
    lines
}

/// How full the flow table is, with a bar of ten characters.
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
    let rule = &row.rule;
    let rate = |value: fn(Rates) -> f64| known(row.rates.map(value));
    vec![
        rule.id.to_string(),
        rules::print::port(rule),
        rule.destination.to_string(),
        known(row.flows_per_second),
        rate(|it| it.original.packets_per_second),
        rate(|it| it.original.bits_per_second),
        rate(|it| it.reply.packets_per_second),
        rate(|it| it.reply.bits_per_second),
        rule.flows.to_string(),
        output::bytes(rule.original.bytes.saturating_add(rule.reply.bytes)),
    ]
}

fn flow(row: &FlowRow) -> Vec<String> {
    let flow = &row.flow;
    let rate = |value: fn(Rates) -> f64| known(row.rates.map(value));
    vec![
        flow.protocol.clone(),
        flow.client.to_string(),
        flow.server.to_string(),
        rate(|it| it.original.bits_per_second),
        rate(|it| it.reply.bits_per_second),
        output::bytes(flow.original.bytes.saturating_add(flow.reply.bytes)),
        rate(|it| it.original.packets_per_second + it.reply.packets_per_second),
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
        row.outcome.name.to_string(),
        row.outcome.description.to_owned(),
    ]
}

/// A rate; none is known until the second refresh.
fn known(rate: Option<f64>) -> String {
    rate.map_or_else(|| "-".to_owned(), output::rate)
}
