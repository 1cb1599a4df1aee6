//! The order in which rules are shown.

use std::cmp::Reverse;

use clap::ValueEnum;

use crate::dataplane::RuleReport;

/// The order of rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// By number, as in the spec
    Rule,
    /// By the port that clients connect to; the fallback is last
    Port,
    /// Most flows first
    Flows,
    /// Most packets first, in both directions
    Packets,
    /// Most bytes first, in both directions
    Bytes,
}

impl Order {
    /// Sorts rules. Equal ones are sorted by id.
    pub fn sort(self, rules: &mut [RuleReport]) {
        rules.sort_by_key(|rule| {
            let port = rule.port.map_or(u32::MAX, u32::from);
            let (port, number) = match self {
                Self::Rule => (0, 0),
                Self::Port => (port, 0),
                Self::Flows => (0, rule.flows),
                Self::Packets => (0, rule.original.packets.saturating_add(rule.reply.packets)),
                Self::Bytes => (0, rule.original.bytes.saturating_add(rule.reply.bytes)),
            };
            (port, Reverse(number), rule.id)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::{super::print::tests::rule, *};

    #[test]
    fn rules_are_sorted_by_number_port_or_the_most_first() {
        let sorted = |order: Order| {
            let mut rules = [
                rule(2, Some(443), 9),
                rule(1, None, 5),
                rule(0, Some(8080), 9),
            ];
            order.sort(&mut rules);
            rules.map(|rule| rule.id)
        };
        assert_eq!(sorted(Order::Rule), [0, 1, 2]);
        assert_eq!(sorted(Order::Port), [2, 0, 1]);
        for order in [Order::Flows, Order::Packets, Order::Bytes] {
            assert_eq!(sorted(order), [0, 2, 1], "{order:?}");
        }
    }
}
