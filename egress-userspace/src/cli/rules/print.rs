//! Formats rules as a table.

use crate::dataplane::{RuleReport, TrafficReport};

use super::super::output::{self, Column, Narrow};

const COLUMNS: &[Column] = &[
    Column::text("RULE"),
    Column::text("PORT"),
    Column::text("DESTINATION"),
    Column::number("FLOWS"),
    Column::number("PACKETS >"),
    Column::number("BYTES >"),
    Column::number("PACKETS <"),
    Column::number("BYTES <"),
];

/// A table of the first `limit` rules, and the sums of all rules. If it is wider than `columns`, each destination has
/// its own line.
pub fn text(rules: &[RuleReport], limit: usize, columns: Option<usize>) -> String {
    let rows = rules[..limit].iter().map(row);
    let sums = (rules.len() > 1).then(|| sums(rules));
    let lines: Vec<_> = output::table(COLUMNS, rows.chain(sums), columns, NARROW).collect();
    lines.join("\n")
}

const NARROW: Narrow = Narrow::Below(2, |destination, _| {
    if destination.is_empty() {
        String::new()
    } else {
        format!("      → {destination}")
    }
});

fn row(rule: &RuleReport) -> Vec<String> {
    cells(
        [
            rule.id.to_string(),
            port(rule),
            rule.destination.to_string(),
            rule.flows.to_string(),
        ],
        rule.original,
        rule.reply,
    )
}

/// The port and protocol of a rule.
pub fn port(rule: &RuleReport) -> String {
    rule.port.map_or_else(
        || "any other".to_owned(),
        |port| format!("{port}/{}", rule.protocol),
    )
}

fn sums(rules: &[RuleReport]) -> Vec<String> {
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
) -> Vec<String> {
    vec![
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

    /// A rule to a server with a long address. Its counters are derived from `number`.
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
    fn the_last_line_has_the_sums_of_all_rules_even_of_those_not_shown() {
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
    fn in_a_narrow_terminal_destinations_have_their_own_lines() {
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
