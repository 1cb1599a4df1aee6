//! Printing results: tables for people, JSON for programs.

use std::{
    io::{self, BufWriter, Write as _},
    iter,
};

use clap::ValueEnum;
use serde::Serialize;

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
    // Standard output alone writes line by line.
    let mut out = BufWriter::new(io::stdout().lock());
    // As the underlying error, so that a closed pipe is recognized.
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

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    pub title: &'static str,
    pub is_number: bool,
}

impl Column {
    /// Words, aligned to the left.
    pub const fn text(title: &'static str) -> Self {
        Self {
            title,
            is_number: false,
        }
    }

    /// Numbers, aligned to the right.
    pub const fn number(title: &'static str) -> Self {
        Self {
            title,
            is_number: true,
        }
    }
}

/// How a table is fitted to a terminal that is too narrow for it.
#[derive(Clone, Copy, Debug)]
pub enum Narrow {
    /// The last column is prose and is wrapped.
    Wrap,
    /// The column with this index goes below the others. The function formats its cells for a terminal of the given
    /// width.
    Below(usize, fn(&str, usize) -> String),
}

/// The space between two columns of a table.
const GAP: usize = 2;
/// The least width that prose is wrapped to.
const MIN_PROSE: usize = 24;
/// How many rows, including the titles, determine the width of a column. A wider cell further down shifts only its own
/// row.
const MEASURED: usize = 10_000;

/// Formats a table without borders: the titles and then each row, which may take several lines. Holds at most
/// [`MEASURED`] rows in memory. `terminal` is the width of the terminal, if the output goes to one.
pub fn table<'t>(
    columns: &'t [Column],
    rows: impl IntoIterator<Item = Vec<String>> + 't,
    terminal: Option<usize>,
    narrow: Narrow,
) -> impl Iterator<Item = String> + 't {
    let titles = columns.iter().map(|column| column.title.to_owned());
    let mut rows = iter::once(titles.collect()).chain(rows);
    let measured: Vec<Vec<String>> = rows.by_ref().take(MEASURED).collect();
    let width_of = |index: usize| measured.iter().map(|row| display_width(&row[index])).max();
    let widths: Vec<_> = (0..columns.len()).filter_map(width_of).collect();
    let before_last: usize = widths.iter().rev().skip(1).map(|width| width + GAP).sum();
    let width = before_last + widths.last().unwrap_or(&0);
    let narrow = terminal
        .filter(|terminal| width > *terminal)
        .map(|terminal| (narrow, terminal));
    measured.into_iter().chain(rows).map(move |mut row| {
        let mut below = None;
        match narrow {
            Some((Narrow::Wrap, terminal)) => {
                let room = terminal.saturating_sub(before_last).max(MIN_PROSE);
                if let Some(prose) = row.last_mut() {
                    *prose = terminal::wrap_beside(prose, Some(room), before_last);
                }
            }
            Some((Narrow::Below(index, format), terminal)) => {
                below = Some((index, format(&row[index], terminal)));
            }
            None => {}
        }
        let mut line = String::new();
        for (index, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let padding = " ".repeat(width.saturating_sub(display_width(cell)));
            match &below {
                Some((below, _)) if *below == index => {}
                _ if columns[index].is_number => line.extend([&padding, cell, "  "]),
                _ => line.extend([cell, &*padding, "  "]),
            }
        }
        line.truncate(line.trim_end().len());
        if let Some((_, below)) = below.filter(|(_, below)| !below.is_empty()) {
            line.extend(["\n", &below]);
        }
        line
    })
}

/// The width of a text in columns of a terminal.
pub fn display_width(text: &str) -> usize {
    textwrap::core::display_width(text)
}

/// A size in binary units: 1536 is `1.5 KiB`.
pub fn bytes(bytes: u64) -> String {
    let decimals = usize::from(bytes >= 1024);
    humansize::format_size(
        bytes,
        humansize::BINARY
            .decimal_places(decimals)
            .decimal_zeroes(decimals),
    )
}

/// A rate with at most three digits and an SI prefix: 1234567 is `1.2M`.
pub fn rate(value: f64) -> String {
    const UNITS: [&str; 6] = ["", "k", "M", "G", "T", "P"];
    let mut scaled = value;
    let mut unit = 0;
    // A value that would round up to four digits takes the next prefix.
    while scaled >= 999.5 && unit + 1 < UNITS.len() {
        scaled /= 1000.0;
        unit += 1;
    }
    let is_whole = scaled >= 99.95 || (unit == 0 && scaled.fract() == 0.0);
    format!("{scaled:.*}{}", usize::from(!is_whole), UNITS[unit])
}

/// A number with thousands separators: 1000000 is `1,000,000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A number of packets with its unit.
pub fn packets(number: u64) -> String {
    format!(
        "{number} {}",
        if number == 1 { "packet" } else { "packets" }
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short_or_grouped() {
        for (number, expected) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (1536, "1.5 KiB"),
            (104_857_600, "100.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(bytes(number), expected);
        }
        for (value, expected) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (12.0, "12"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (1_234_567.0, "1.2M"),
            (123_456.0, "123k"),
            (25e9, "25.0G"),
        ] {
            assert_eq!(rate(value), expected);
        }
        for (number, expected) in [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1_000_000, "1,000,000"),
        ] {
            assert_eq!(grouped(number), expected);
        }
    }

    /// A table with one row, of two cells.
    fn lines(
        columns: [Column; 2],
        row: [&str; 2],
        terminal: Option<usize>,
        narrow: Narrow,
    ) -> String {
        let row = row.map(ToOwned::to_owned).to_vec();
        let lines: Vec<_> = table(&columns, [row], terminal, narrow).collect();
        lines.join("\n")
    }

    #[test]
    fn a_table_aligns_numbers_to_the_right_and_ends_lines_cleanly() {
        let columns = [Column::text("NAME"), Column::number("N")];
        let text = lines(columns, ["a", "1000"], None, Narrow::Wrap);
        assert_eq!(text, "NAME     N\na     1000");
        let columns = [Column::number("N"), Column::text("NAME")];
        let text = lines(columns, ["1000", "a"], None, Narrow::Wrap);
        assert_eq!(text, "   N  NAME\n1000  a");
    }

    #[test]
    fn a_wide_cell_after_the_measured_rows_is_whole() {
        let cell = |text: &str| vec![text.to_owned(), "1".to_owned()];
        let rows = iter::repeat_n(cell("a"), MEASURED).chain([cell("a long name")]);
        let columns = [Column::text("NAME"), Column::number("N")];
        let last = table(&columns, rows, None, Narrow::Wrap).last();
        assert_eq!(last.as_deref(), Some("a long name  1"));
    }

    #[test]
    fn the_prose_of_a_table_is_wrapped_to_the_terminal() {
        let prose = "twenty-four columns are.the.least";
        let columns = [Column::text("NAME"), Column::text("MEANING")];
        let text = |terminal| lines(columns, ["a", prose], terminal, Narrow::Wrap);
        let broken = "NAME  MEANING\na     twenty-four columns\n      are.the.least";
        assert_eq!(text(Some(30)), broken);
        assert_eq!(text(Some(10)), broken);
        let whole = format!("NAME  MEANING\na     {prose}");
        assert_eq!(text(Some(80)), whole);
        assert_eq!(text(None), whole);
    }

    #[test]
    fn a_column_goes_below_the_others_in_a_narrow_terminal_only() {
        let columns = [Column::text("WAY"), Column::number("N")];
        let below = Narrow::Below(0, |way, _| format!("  {way}"));
        let text = |terminal| lines(columns, ["a -> b", "1"], Some(terminal), below);
        assert_eq!(text(9), "WAY     N\na -> b  1");
        assert_eq!(text(8), "N\n  WAY\n1\n  a -> b");
    }
}
