//! The results of a run: tables for people, JSON for programs.

use std::fmt::Write as _;

use serde::Serialize;
use tabled::builder::Builder;
use tabled::settings::object::Columns;
use tabled::settings::{Alignment, Padding, Style};

use crate::contender::Contender;
use crate::machine::Machine;
use crate::stats::{Better, Estimate, Samples};

/// A whole run.
#[derive(Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    /// `quick` or `full`.
    pub mode: &'static str,
    pub tables: Vec<Table>,
}

/// The measurement of one quantity for several contenders or scenarios.
#[derive(Debug, Serialize)]
pub struct Table {
    /// Its name on the command line.
    pub case: &'static str,
    /// Its title, for people.
    pub title: String,
    /// The unit of the values.
    pub unit: &'static str,
    /// Which values are better.
    pub better: Better,
    /// The number of samples of each row.
    pub rounds: usize,
    /// What the ratios compare.
    pub ratios_of: RatiosOf,
    /// One row for each contender or scenario.
    pub rows: Vec<Row>,
    /// What a reader must know to interpret the table.
    pub notes: Vec<String>,
    /// The router's relative difference from itself, set by [`Table::judged`].
    pub harness_error: Option<f64>,
}

/// What the ratios of a table compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum RatiosOf {
    /// The cost of a packet beyond sending it.
    Cost,
    /// The values themselves.
    Value,
}

/// A row of a [`Table`].
#[derive(Debug, Serialize)]
pub struct Row {
    /// The contender or scenario.
    pub name: String,
    /// The reason for a missing value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// The value, in the table's unit.
    pub value: Option<Estimate>,
    /// The cost of a packet beyond sending it, in nanoseconds.
    pub cost_ns: Option<Estimate>,
    /// The ratio to nftables.
    pub to_nftables: Option<Estimate>,
    /// The ratio to the bare `bpf_redirect`.
    pub to_redirect: Option<Estimate>,
    /// The share of packets that did not arrive.
    pub lost: Option<f64>,
}

impl Row {
    /// A row with a value but nothing to compare it with.
    pub fn of(name: impl Into<String>, value: Estimate) -> Self {
        Self {
            value: Some(value),
            ..Self::skipped(name, None)
        }
    }

    /// A row without a value.
    pub fn skipped(name: impl Into<String>, reason: Option<String>) -> Self {
        Self {
            name: name.into(),
            skipped: reason,
            value: None,
            cost_ns: None,
            to_nftables: None,
            to_redirect: None,
            lost: None,
        }
    }
}

/// The rows of contenders that were measured side by side.
pub fn compare(contenders: &[Contender], samples: &Samples, ratios_of: RatiosOf) -> Vec<Row> {
    let place = |wanted| contenders.iter().position(|one| *one == wanted);
    let sending = place(Contender::Sending);
    let cost = move |value: &dyn Fn(usize) -> f64, one: usize| {
        let sending = sending.map_or(0.0, |sending| 1e9 / value(sending));
        1e9 / value(one) - sending
    };
    let compared = move |value: &dyn Fn(usize) -> f64, one: usize| match ratios_of {
        RatiosOf::Cost => cost(value, one),
        RatiosOf::Value => value(one),
    };
    let ratio = |one: usize, other: Option<usize>| {
        let other = other.filter(|_| Some(one) != sending)?;
        Some(samples.estimate(|value| compared(value, one) / compared(value, other)))
    };
    let row = |(one, contender): (usize, &Contender)| Row {
        cost_ns: (sending.is_some_and(|sending| sending != one))
            .then(|| samples.estimate(|value| cost(value, one))),
        to_nftables: ratio(one, place(Contender::Nftables)),
        to_redirect: ratio(one, place(Contender::Redirect)),
        ..Row::of(contender.name(), samples.estimate(|value| value(one)))
    };
    contenders.iter().enumerate().map(row).collect()
}

impl Table {
    /// The table with the harness's own error, if the router takes part twice.
    #[must_use]
    pub fn judged(mut self) -> Self {
        let compared = |contender: Contender| {
            let name = contender.name();
            let row = self.rows.iter().find(|row| row.name == name)?;
            let estimate = match self.ratios_of {
                RatiosOf::Cost => row.cost_ns,
                RatiosOf::Value => row.value,
            };
            Some(estimate?.value)
        };
        let pair = compared(Contender::EgressRouter).zip(compared(Contender::EgressRouterAgain));
        self.harness_error = pair.map(|(one, again)| (again / one - 1.0).abs());
        self
    }

    /// The table as text.
    pub fn text(&self) -> String {
        let columns = self.columns();
        let mut builder = Builder::new();
        let heads = columns.iter().map(|column| column.head.clone());
        builder.push_record(std::iter::once(String::new()).chain(heads));
        for row in self.rows.iter().filter(|row| row.value.is_some()) {
            let cells = columns.iter().map(|column| (column.cell)(row));
            builder.push_record(std::iter::once(row.name.clone()).chain(cells));
        }
        let mut table = builder.build();
        table
            .with(Style::empty())
            .with(Padding::new(0, 2, 0, 0))
            .modify(Columns::new(1..), Alignment::right());
        let mut text = format!("{}\n", self.title);
        for line in table.to_string().lines() {
            let _ = writeln!(text, "  {}", line.trim_end());
        }
        for row in &self.rows {
            if let Some(reason) = &row.skipped {
                let _ = writeln!(text, "  {}: skipped: {reason}", row.name);
            }
        }
        if let Some(error) = self.harness_error {
            let _ = writeln!(text, "  The harness's own error: {:.1} %", 100.0 * error);
        }
        for note in &self.notes {
            let _ = writeln!(text, "  {note}");
        }
        text
    }

    /// The columns that have a value in any row.
    fn columns(&self) -> Vec<Column> {
        let compared = self.compared();
        let every: [(String, Cell); 6] = [
            (self.unit.to_owned(), |row| value(row.value)),
            ("± %".into(), |row| spread(row.value)),
            ("ns beyond sending".into(), |row| value(row.cost_ns)),
            (format!("{compared} / nftables"), |row| {
                ratio(row.to_nftables)
            }),
            (format!("{compared} / redirect"), |row| {
                ratio(row.to_redirect)
            }),
            ("lost".into(), |row| share(row.lost)),
        ];
        let has_any = |cell: Cell| self.rows.iter().any(|row| !cell(row).is_empty());
        every
            .into_iter()
            .filter(|(_, cell)| has_any(*cell))
            .map(|(head, cell)| Column { head, cell })
            .collect()
    }

    const fn compared(&self) -> &'static str {
        match self.ratios_of {
            RatiosOf::Cost => "cost",
            RatiosOf::Value => "value",
        }
    }
}

/// Formats a row's cell of a column.
type Cell = fn(&Row) -> String;

struct Column {
    head: String,
    cell: Cell,
}

fn share(share: Option<f64>) -> String {
    share.map_or_else(String::new, |share| format!("{:.2} %", 100.0 * share))
}

fn value(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(String::new, |estimate| number(estimate.value))
}

/// Half the interval, in percent of the value.
fn spread(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(String::new, |estimate| {
        let half = (estimate.high - estimate.low) / 2.0;
        format!("{:.1}", 100.0 * half / estimate.value)
    })
}

fn ratio(estimate: Option<Estimate>) -> String {
    estimate.map_or_else(String::new, |Estimate { value, low, high }| {
        format!("{value:.2} ({low:.2}–{high:.2})")
    })
}

/// Formats a number with three significant digits, or all digits before the decimal point.
pub fn number(value: f64) -> String {
    let decimals = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        _ => 2,
    };
    grouped(&format!("{value:.decimals$}"))
}

/// Formats a whole number.
pub fn count(value: u32) -> String {
    grouped(&value.to_string())
}

/// Groups a number's digits by thousands.
fn grouped(text: &str) -> String {
    let (whole, fraction) = text
        .find('.')
        .map_or((text, ""), |point| text.split_at(point));
    let digits = whole.trim_start_matches('-');
    let mut grouped = whole[..whole.len() - digits.len()].to_owned();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_have_three_digits() {
        for (value, text) in [
            (1_234_567.8, "1,234,568"),
            (999.6, "1,000"),
            (247.3, "247"),
            (24.73, "24.7"),
            (2.473, "2.47"),
            (-1_234.0, "-1,234"),
        ] {
            assert_eq!(number(value), text);
        }
        assert_eq!([count(2), count(65_535)], ["2", "65,535"]);
    }

    #[test]
    fn costs_are_what_is_beyond_sending() {
        let contenders = [
            Contender::EgressRouter,
            Contender::Nftables,
            Contender::Sending,
        ];
        // 2 µs, 3 µs and 1 µs per packet.
        let values = vec![vec![500e3; 3], vec![1e9 / 3e3; 3], vec![1e6; 3]];
        let samples = Samples::new(Better::Higher, values);
        let rows = compare(&contenders, &samples, RatiosOf::Cost);
        let close = |estimate: Option<Estimate>, value: f64| {
            estimate.is_some_and(|estimate| (estimate.value - value).abs() < 1e-6)
        };
        assert!(close(rows[0].cost_ns, 1_000.0), "{rows:?}");
        assert!(close(rows[0].to_nftables, 0.5), "{rows:?}");
        assert!(rows[2].cost_ns.is_none() && rows[2].to_nftables.is_none());
        assert!(rows[0].to_redirect.is_none());
    }

    #[test]
    fn the_harness_errs_by_what_the_router_differs_from_itself() {
        let rows = [
            (Contender::EgressRouter, 100.0),
            (Contender::EgressRouterAgain, 103.0),
        ];
        let table = Table {
            case: "stream",
            title: "One stream".into(),
            unit: "Gbit/s",
            better: Better::Higher,
            rounds: 3,
            ratios_of: RatiosOf::Value,
            rows: rows
                .map(|(contender, value)| Row::of(contender.name(), Estimate::exact(value)))
                .into(),
            notes: Vec::new(),
            harness_error: None,
        };
        let text = table.judged().text();
        assert!(text.contains("own error: 3.0 %"), "{text}");
    }

    #[test]
    fn a_skipped_contender_says_why() {
        let table = Table {
            case: "flow",
            title: "One flow".into(),
            unit: "packets/s",
            better: Better::Higher,
            rounds: 3,
            ratios_of: RatiosOf::Cost,
            rows: vec![
                Row::of("one", Estimate::exact(1.0)),
                Row::skipped("other", Some("not installed".into())),
            ],
            notes: Vec::new(),
            harness_error: None,
        };
        let text = table.text();
        assert!(text.contains("other: skipped: not installed"), "{text}");
        assert!(text.lines().nth(1).unwrap().contains("packets/s"), "{text}");
    }
}
