//! How results are printed: as a table for people, or as JSON for programs.

use std::io::{self, BufWriter, Write as _};

use clap::ValueEnum;
use serde::Serialize;
use tabled::{
    builder::Builder,
    settings::{Alignment, Padding, Style, object::Columns},
};

use super::terminal;

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Prints a value as JSON.
pub fn json(value: &(impl Serialize + ?Sized)) -> anyhow::Result<()> {
    // Standard output by itself writes line by line.
    let mut out = BufWriter::new(io::stdout().lock());
    // As the error that it is, so that a closed pipe is known for one.
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    out.flush()?;
    Ok(())
}

/// Prints text.
pub fn text(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout().lock(), "{text}")?;
    Ok(())
}

/// The space between two columns of a table.
const GAP: usize = 2;
/// A column of prose is not made narrower than this.
const MIN_PROSE: usize = 24;

/// A table without lines. The columns from `numbers_from` on hold numbers, and are aligned to the right. If there are none,
/// the last column is prose, which is broken into lines where the table is wider than `columns`.
pub fn table<const N: usize>(
    header: [&str; N],
    numbers_from: usize,
    rows: impl IntoIterator<Item = [String; N]>,
    columns: Option<usize>,
) -> String {
    let mut rows: Vec<_> = rows.into_iter().collect();
    if let Some(columns) = columns
        && numbers_from == N
    {
        let width = |column: usize| {
            let cells = rows.iter().map(|row| row[column].as_str());
            cells.chain([header[column]]).map(display_width).max()
        };
        let others: usize = (0..N - 1).filter_map(width).map(|width| width + GAP).sum();
        let prose = columns.saturating_sub(others).max(MIN_PROSE);
        for row in &mut rows {
            row[N - 1] = terminal::wrap(&row[N - 1], Some(prose), 0);
        }
    }
    let mut builder = Builder::default();
    builder.push_record(header);
    for row in rows {
        builder.push_record(row);
    }
    let mut table = builder.build();
    table.with(Style::empty()).with(Padding::new(0, GAP, 0, 0));
    table.modify(Columns::new(numbers_from..), Alignment::right());
    // The last column's padding would be white space at the end of each line.
    let lines: Vec<_> = table
        .to_string()
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// How many columns of a terminal a text takes.
pub fn display_width(text: &str) -> usize {
    textwrap::core::display_width(text)
}

/// A number of bytes as people read it: 1536 is `1.5 KiB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    #[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
    let mut value = bytes as f64 / 1024.0;
    let mut unit = UNITS[0];
    for next in &UNITS[1..] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{value:.1} {unit}")
}

/// A number of packets as people read it.
pub fn packets(number: u64) -> String {
    format!(
        "{number} {}",
        if number == 1 { "packet" } else { "packets" }
    )
}

/// A number of seconds as people read it: 3725 is `1h2m`.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{}h", seconds / 86400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_and_durations_are_short() {
        for (number, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1536, "1.5 KiB"),
            (104_857_600, "100.0 MiB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
        assert_eq!(bytes(u64::MAX), "16384.0 PiB");
        for (seconds, expected) in [(0, "0s"), (61, "1m1s"), (3725, "1h2m"), (432_000, "5d0h")] {
            assert_eq!(duration(seconds), expected);
        }
    }

    #[test]
    fn a_table_aligns_numbers_to_the_right_and_ends_lines_cleanly() {
        let rows = [
            ["a".to_owned(), "5".to_owned()],
            ["bcd".to_owned(), "1000".to_owned()],
        ];
        assert_eq!(
            table(["NAME", "N"], 1, rows, None),
            "NAME     N\na        5\nbcd   1000"
        );
    }
    #[test]
    fn the_prose_of_a_table_is_as_wide_as_the_terminal_lets_it_be() {
        let prose = "twenty-four columns are.the.least";
        let rows = || [["a".to_owned(), prose.to_owned()]];
        let header = ["NAME", "MEANING"];
        let broken = "NAME  MEANING\na     twenty-four columns\n      are.the.least";
        assert_eq!(table(header, 2, rows(), Some(30)), broken);
        assert_eq!(table(header, 2, rows(), Some(10)), broken);
        let whole = format!("NAME  MEANING\na     {prose}");
        assert_eq!(table(header, 2, rows(), Some(80)), whole);
        assert_eq!(table(header, 2, rows(), None), whole);
    }
}
