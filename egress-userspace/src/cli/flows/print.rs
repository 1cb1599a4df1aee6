//! How flows are printed: one by one, however many there are.

use std::io::{self, BufWriter, Write};

use clap::ValueEnum;
use serde::Serializer as _;

use super::super::{output, terminal};
use crate::dataplane::FlowReport;

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

/// So many rows decide how wide a column is. A wider cell further down moves its own row only.
const MEASURED: usize = 10_000;

const HEADER: [&str; COLUMNS] = [
    "PROTO",
    "CLIENT → ROUTER ⇒ RESERVED → SERVER",
    "STATE",
    "AGE",
    "PACKETS >",
    "BYTES >",
    "PACKETS <",
    "BYTES <",
];
const COLUMNS: usize = 8;
const GAP: &str = "  ";
/// The column that is the widest by far.
const WAY: usize = 1;
/// The columns from here on are aligned to the right.
const NUMBERS_FROM: usize = 3;

type Row = [String; COLUMNS];

/// Prints flows to standard output.
pub fn print(format: Format, flows: impl Iterator<Item = FlowReport>) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match format {
        Format::Text => text(&mut out, flows, terminal::columns())?,
        Format::Json => {
            serde_json::Serializer::pretty(&mut out)
                .collect_seq(flows)
                // As the error that it is, so that a closed pipe is known for one.
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
    let mut rows = flows.map(|flow| row(&flow));
    let mut measured = vec![HEADER.map(ToOwned::to_owned)];
    measured.extend(rows.by_ref().take(MEASURED));
    let mut widths = [0; COLUMNS];
    for row in &measured {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let width: usize = widths.iter().sum::<usize>() + GAP.len() * (COLUMNS - 1);
    let narrow = columns.filter(|columns| width > *columns);
    measured.into_iter().chain(rows).try_for_each(|row| {
        let Some(columns) = narrow else {
            return writeln!(out, "{}", line(&row, &widths, |_| true));
        };
        writeln!(out, "{}", line(&row, &widths, |column| column != WAY))?;
        writeln!(out, "{}", way(&row[WAY], columns))
    })
}

/// A flow's way on a line of its own; on two, one for each connection, where that is too long; else on one for each end.
fn way(way: &str, columns: usize) -> String {
    let whole = format!("{GAP}{way}");
    let two = whole.replace(" ⇒ ", &format!("\n{GAP}{GAP}⇒ "));
    let four = two.replace(" → ", &format!("\n{GAP}{GAP}→ "));
    let fits = |text: &String| {
        text.lines()
            .all(|line| output::display_width(line) <= columns)
    };
    [whole, two].into_iter().find(fits).unwrap_or(four)
}

fn row(flow: &FlowReport) -> Row {
    [
        flow.protocol.clone(),
        format!(
            "{} → {} ⇒ {} → {}",
            flow.client, flow.router, flow.reserved, flow.server
        ),
        flow.state.to_owned(),
        output::duration(flow.age_seconds),
        flow.original.packets.to_string(),
        output::bytes(flow.original.bytes),
        flow.reply.packets.to_string(),
        output::bytes(flow.reply.bytes),
    ]
}

/// The cells of those columns that are wanted.
fn line(row: &Row, widths: &[usize; COLUMNS], is_wanted: impl Fn(usize) -> bool) -> String {
    let cells: Vec<_> = row
        .iter()
        .zip(widths)
        .enumerate()
        .filter(|(column, _)| is_wanted(*column))
        .map(|(column, (cell, width))| {
            if column < NUMBERS_FROM {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        })
        .collect();
    cells.join(GAP)
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
    fn in_a_narrow_terminal_the_way_has_lines_of_its_own() {
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
