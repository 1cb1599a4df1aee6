//! How rules are printed for people.

use std::{array, iter};

use super::super::output;
use crate::dataplane::{RuleReport, TrafficReport};

const COLUMNS: usize = 8;
const HEADER: [&str; COLUMNS] = [
    "RULE",
    "PORT",
    "DESTINATION",
    "FLOWS",
    "PACKETS >",
    "BYTES >",
    "PACKETS <",
    "BYTES <",
];
const DESTINATION: usize = 2;

/// The cells of a rule, or of the sums of all.
type Row = [String; COLUMNS];

/// A table of the first `limit` rules, and of the sums of all. Where it is wider than the terminal's `columns`, each
/// destination has a line of its own.
pub fn text(rules: &[RuleReport], limit: usize, columns: Option<usize>) -> String {
    let shown = rules[..limit].iter().map(row);
    let sums = (rules.len() > 1).then(|| sums(rules));
    let rows: Vec<_> = shown.chain(sums).collect();
    let table = output::table(HEADER, DESTINATION + 1, rows.iter().cloned(), None);
    let width = table.lines().map(output::display_width).max();
    match columns {
        Some(columns) if width > Some(columns) => narrow(&rows),
        _ => table,
    }
}

fn narrow(rows: &[Row]) -> String {
    let header = without_destination(&HEADER);
    let table = output::table(
        header,
        DESTINATION,
        rows.iter().map(without_destination),
        None,
    );
    let destinations = rows.iter().map(|row| row[DESTINATION].as_str());
    let mut text = String::new();
    for (line, destination) in table
        .lines()
        .zip(iter::once(HEADER[DESTINATION]).chain(destinations))
    {
        text = text + line + "\n";
        if !destination.is_empty() {
            text = text + "      → " + destination + "\n";
        }
    }
    text.truncate(text.trim_end().len());
    text
}

fn without_destination<T: Clone>(cells: &[T; COLUMNS]) -> [T; COLUMNS - 1] {
    array::from_fn(|index| cells[index + usize::from(index >= DESTINATION)].clone())
}

fn row(rule: &RuleReport) -> Row {
    let port = rule.port.map_or_else(
        || "any other".to_owned(),
        |port| format!("{port}/{}", rule.protocol),
    );
    cells(
        [
            rule.id.to_string(),
            port,
            rule.destination.to_string(),
            rule.flows.to_string(),
        ],
        rule.original,
        rule.reply,
    )
}

fn sums(rules: &[RuleReport]) -> Row {
    let sum = |traffic: fn(&RuleReport) -> TrafficReport| {
        rules
            .iter()
            .map(traffic)
            .fold(TrafficReport::default(), |sum, one| TrafficReport {
                packets: sum.packets.saturating_add(one.packets),
                bytes: sum.bytes.saturating_add(one.bytes),
            })
    };
    let flows = rules
        .iter()
        .fold(0_u64, |sum, rule| sum.saturating_add(rule.flows));
    cells(
        [
            "all".to_owned(),
            rules.len().to_string(),
            String::new(),
            flows.to_string(),
        ],
        sum(|rule| rule.original),
        sum(|rule| rule.reply),
    )
}

fn cells(
    [rule, port, destination, flows]: [String; 4],
    original: TrafficReport,
    reply: TrafficReport,
) -> Row {
    [
        rule,
        port,
        destination,
        flows,
        original.packets.to_string(),
        output::bytes(original.bytes),
        reply.packets.to_string(),
        output::bytes(reply.bytes),
    ]
}

#[cfg(test)]
pub mod tests {
    use crate::dataplane::Target;

    use super::*;

    /// A rule to a server with a long address, whose numbers follow from `number`.
    pub fn rule(id: u32, port: Option<u16>, number: u64) -> RuleReport {
        let traffic = TrafficReport {
            packets: number,
            bytes: number * 1000,
        };
        RuleReport {
            id,
            protocol: if port.is_some() { "TCP" } else { "any" }.to_owned(),
            port,
            destination: Target {
                address: "2001:db8:1234:5678:9abc:def0:1234:5678".parse().unwrap(),
                port,
            },
            flows: number,
            original: traffic,
            reply: traffic,
        }
    }

    #[test]
    fn the_last_line_has_the_sums_of_all_rules_also_of_those_that_are_not_shown() {
        let rules = [rule(0, Some(80), 1), rule(1, None, 2)];
        let text = text(&rules, 1, None);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[2].starts_with("all   2 "), "{text}");
        let words: Vec<_> = lines[2].split_whitespace().skip(2).collect();
        assert_eq!(words, ["3", "3", "2.9", "KiB", "3", "2.9", "KiB"], "{text}");
    }

    #[test]
    fn one_rule_needs_no_sums() {
        assert_eq!(text(&[rule(0, Some(80), 1)], 1, None).lines().count(), 2);
    }

    #[test]
    fn in_a_narrow_terminal_destinations_have_lines_of_their_own() {
        let rules = [rule(0, Some(65535), 1 << 30), rule(1, None, 2)];
        for (columns, lines) in [(80, 7), (200, 4)] {
            let text = text(&rules, 2, Some(columns));
            assert_eq!(text.lines().count(), lines, "{text}");
            for line in text.lines() {
                assert!(output::display_width(line) <= columns, "{text}");
            }
        }
    }
}
