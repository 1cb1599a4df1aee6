//! Prints flows one by one, so that any number of them takes little memory.

use std::io::{self, BufWriter, Write};

use clap::ValueEnum;
use serde::Serializer as _;

use crate::dataplane::FlowReport;

use super::super::{
    duration,
    output::{self, Column, Narrow},
    terminal,
};

/// The format of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Text,
    /// For programs: one list
    Json,
    /// For programs: a line for each flow
    Jsonl,
}

const COLUMNS: &[Column] = &[
    Column::text("PROTO"),
    Column::text("CLIENT → ROUTER ⇒ RESERVED → SERVER"),
    Column::text("STATE"),
    Column::number("AGE"),
    Column::number("PACKETS >"),
    Column::number("BYTES >"),
    Column::number("PACKETS <"),
    Column::number("BYTES <"),
];
/// A narrow terminal shows the widest column below the others.
const NARROW: Narrow = Narrow::Below(1, endpoints);

/// Prints flows to standard output.
pub fn print(format: Format, flows: impl Iterator<Item = FlowReport>) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match format {
        Format::Text => text(&mut out, flows, terminal::columns())?,
        Format::Json => {
            serde_json::Serializer::pretty(&mut out)
                .collect_seq(flows)
                // As the underlying error, so that a closed pipe is recognized.
                .map_err(io::Error::from)?;
            writeln!(out)?;
        }
        Format::Jsonl => {
            for flow in flows {
                serde_json::to_writer(&mut out, &flow).map_err(io::Error::from)?;
                writeln!(out)?;
            }
        }
    }
    out.flush()?;
    Ok(())
}

fn text(
    out: &mut impl Write,
    flows: impl Iterator<Item = FlowReport>,
    columns: Option<usize>,
) -> io::Result<()> {
    output::table(COLUMNS, flows.map(row), columns, NARROW)
        .try_for_each(|line| writeln!(out, "{line}"))
}

/// A flow's endpoints on one line; if that is too long, on two, one for each connection; else each on its own line.
fn endpoints(endpoints: &str, columns: usize) -> String {
    let whole = format!("  {endpoints}");
    let two = whole.replace(" ⇒ ", "\n    ⇒ ");
    let four = two.replace(" → ", "\n    → ");
    let fits = |text: &String| {
        text.lines()
            .all(|line| output::display_width(line) <= columns)
    };
    [whole, two].into_iter().find(fits).unwrap_or(four)
}

fn row(flow: FlowReport) -> Vec<String> {
    vec![
        flow.protocol,
        format!(
            "{} → {} ⇒ {} → {}",
            flow.client, flow.router, flow.reserved, flow.server
        ),
        flow.state.to_owned(),
        duration::short(flow.age_seconds),
        flow.original.packets.to_string(),
        output::bytes(flow.original.bytes),
        flow.reply.packets.to_string(),
        output::bytes(flow.reply.bytes),
    ]
}

#[cfg(test)]
mod tests {
    use super::{super::order::tests::flow, *};

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = Vec::new();
        text(&mut out, [flow(1), flow(60000)].into_iter(), None).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3);
        let width = |line: &str| line.chars().count();
        assert!(
            lines.iter().all(|line| width(line) == width(lines[0])),
            "{text}"
        );
        assert!(lines[0].starts_with("PROTO  CLIENT"), "{text}");
    }

    #[test]
    fn in_a_narrow_terminal_the_endpoints_have_their_own_lines() {
        let with_address = |address: &str| {
            let mut flow = flow(60000);
            for end in [
                &mut flow.client,
                &mut flow.router,
                &mut flow.reserved,
                &mut flow.server,
            ] {
                end.address = address.parse().unwrap();
            }
            flow
        };
        let long = with_address("2001:db8:1234:5678::1");
        let longest = with_address("2001:db8:1234:5678:9abc:def0:1234:5678");
        for (flow, columns, lines) in [
            (flow(60000), 80, 4),
            (flow(60000), 160, 2),
            (long.clone(), 80, 5),
            (long, 160, 4),
            (longest.clone(), 80, 7),
            (longest, 200, 4),
        ] {
            let mut out = Vec::new();
            text(&mut out, [flow].into_iter(), Some(columns)).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text.lines().count(), lines, "{text}");
            for line in text.lines() {
                assert!(output::display_width(line) <= columns, "{text}");
            }
        }
    }
}
