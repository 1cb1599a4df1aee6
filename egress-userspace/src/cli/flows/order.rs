//! The order in which flows are shown.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, HashSet},
};

use clap::ValueEnum;

use crate::dataplane::{FlowKey, FlowReport};

/// The order of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// By client, router and server
    Client,
    /// Most bytes first, in both directions
    Bytes,
    /// Most packets first, in both directions
    Packets,
    /// Oldest first
    Age,
    /// Idle for longest first
    Idle,
}

/// What a flow is sorted by: a number, the largest first, then the flow's key.
type Rank = (Reverse<u64>, FlowKey);

impl Order {
    fn rank(self, flow: &FlowReport) -> Rank {
        let number = match self {
            Self::Client => 0,
            Self::Bytes => flow.original.bytes.saturating_add(flow.reply.bytes),
            Self::Packets => flow.original.packets.saturating_add(flow.reply.packets),
            Self::Age => flow.age_seconds,
            Self::Idle => flow.idle_seconds,
        };
        (Reverse(number), flow.key())
    }

    fn compare(self, one: &FlowReport, other: &FlowReport) -> Ordering {
        self.rank(one).cmp(&self.rank(other))
    }

    /// Sorts flows and removes duplicates, which a walk of a changing table may have.
    pub fn sort(self, flows: &mut Vec<FlowReport>) {
        flows.sort_by(|one, other| self.compare(one, other));
        let mut seen = HashSet::new();
        flows.retain(|flow| seen.insert(flow.key()));
    }

    /// The first `limit` flows in this order. Holds no more than that in memory.
    pub fn first(self, limit: usize, flows: impl Iterator<Item = FlowReport>) -> Vec<FlowReport> {
        let mut first: BTreeMap<Rank, FlowReport> = BTreeMap::new();
        for flow in flows {
            let rank = self.rank(&flow);
            let is_among_first =
                first.len() < limit || first.last_key_value().is_some_and(|(last, _)| rank < *last);
            if !is_among_first {
                continue;
            }
            first.insert(rank, flow);
            if first.len() > limit {
                first.pop_last();
            }
        }
        let mut first: Vec<_> = first.into_values().collect();
        self.sort(&mut first);
        first
    }
}

#[cfg(test)]
pub mod tests {
    use crate::dataplane::{Endpoint, TrafficReport};
    use proptest::prelude::*;

    use super::*;

    /// A flow whose ports and counters are derived from `number`.
    pub fn flow(number: u16) -> FlowReport {
        let endpoint = |address: &str, port| Endpoint {
            address: address.parse().unwrap(),
            port,
        };
        FlowReport {
            protocol: "TCP".to_owned(),
            client: endpoint("10.128.0.2", number),
            router: endpoint("10.128.0.100", 8080),
            reserved: endpoint("192.168.12.99", number),
            server: endpoint("203.0.113.26", 80),
            state: "ESTABLISHED",
            rule: 1,
            age_seconds: number.into(),
            idle_seconds: 0,
            original: TrafficReport {
                packets: 1,
                bytes: u64::from(number) * 100,
            },
            reply: TrafficReport::default(),
        }
    }

    proptest! {
        #[test]
        fn the_first_are_those_of_all_sorted(numbers in prop::collection::hash_set(0_u16..100, 0..50), limit in 0_usize..60) {
            for order in Order::value_variants() {
                let all: Vec<_> = numbers.iter().map(|number| flow(*number)).collect();
                let mut sorted = all.clone();
                order.sort(&mut sorted);
                sorted.truncate(limit);
                prop_assert_eq!(order.first(limit, all.into_iter()), sorted);
            }
        }
    }

    #[test]
    fn the_busiest_come_first_and_duplicates_are_removed() {
        let flows = [1, 3, 2, 3].map(flow);
        let first = Order::Bytes.first(2, flows.into_iter());
        assert_eq!(first, [flow(3), flow(2)]);
    }
}
