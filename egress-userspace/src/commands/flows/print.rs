//! How flows are printed: one by one, however many there are.

use std::io::{self, BufWriter, Write};

use clap::ValueEnum;
use egress_userspace::dataplane::FlowReport;
use serde::Serializer as _;

use super::super::output;

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
/// The columns from here on are aligned to the right.
const NUMBERS_FROM: usize = 3;

type Row = [String; COLUMNS];

/// Prints flows to standard output.
pub fn print(format: Format, flows: impl Iterator<Item = FlowReport>) -> anyhow::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    match format {
        Format::Text => text(&mut out, flows)?,
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

fn text(out: &mut impl Write, flows: impl Iterator<Item = FlowReport>) -> io::Result<()> {
    let mut rows = flows.map(|flow| row(&flow));
    let mut measured = vec![HEADER.map(ToOwned::to_owned)];
    measured.extend(rows.by_ref().take(MEASURED));
    let mut widths = [0; COLUMNS];
    for row in &measured {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    measured
        .into_iter()
        .chain(rows)
        .try_for_each(|row| writeln!(out, "{}", line(&row, &widths)))
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

fn line(row: &Row, widths: &[usize; COLUMNS]) -> String {
    let cells: Vec<_> = row
        .iter()
        .zip(widths)
        .enumerate()
        .map(|(column, (cell, width))| {
            if column < NUMBERS_FROM {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        })
        .collect();
    cells.join("  ")
}

#[cfg(test)]
mod tests {
    use super::{super::order::tests::flow, *};

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut out = Vec::new();
        text(&mut out, [flow(1), flow(60000)].into_iter()).unwrap();
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
}
