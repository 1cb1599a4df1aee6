//! What is shown: rates, computed from the counters of two snapshots.

use std::{
    cmp::Reverse,
    collections::{HashMap, HashSet},
    time::Duration,
};

use clap::ValueEnum;
use serde::Serialize;

use crate::dataplane::{FlowReport, OutcomeReport, RuleReport, TrafficReport};

use super::{super::status::Router, snapshot::Snapshot};

/// How many flows a frame has at most.
pub const BUSIEST: usize = 200;

/// Which flows come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// Most bytes per second, in both directions
    Rate,
    /// Most packets per second, in both directions
    PacketRate,
    /// Most bytes since they were opened, in both directions
    Bytes,
    /// Opened last
    Newest,
}

impl Sort {
    /// The next order. The first follows the last.
    pub fn next(self) -> Self {
        let all = Self::value_variants();
        all[(self as usize + 1) % all.len()]
    }

    /// Its name in a title.
    pub fn title(self) -> &'static str {
        match self {
            Self::Rate => "by bytes per second",
            Self::PacketRate => "by packets per second",
            Self::Bytes => "by bytes",
            Self::Newest => "newest first",
        }
    }
}

/// Rates of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rate {
    pub packets_per_second: f64,
    /// Bits from the IP header on.
    pub bits_per_second: f64,
}

/// Rates of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Rates {
    /// From clients.
    pub original: Rate,
    /// To clients.
    pub reply: Rate,
}

/// A rule. It has rates from the second snapshot on.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RuleRow {
    #[serde(flatten)]
    pub rule: RuleReport,
    /// Flows opened.
    pub flows_per_second: Option<f64>,
    pub rates: Option<Rates>,
}

/// A flow. It has rates from the second snapshot on that it is part of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FlowRow {
    #[serde(flatten)]
    pub flow: FlowReport,
    pub rates: Option<Rates>,
}

/// An outcome that packets had.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutcomeRow {
    #[serde(flatten)]
    pub outcome: OutcomeReport,
    pub packets_per_second: Option<f64>,
}

impl OutcomeRow {
    /// Returns `true` if the packets went to the pod's own stack, and were not lost.
    pub fn is_pass(&self) -> bool {
        self.outcome.verdict == "pass"
    }
}

/// The flows that come first.
#[derive(Clone, Debug, Serialize)]
pub struct Flows {
    /// The number of flows, if it is known: a snapshot may have only some of them.
    pub total: Option<usize>,
    /// The number of flows in the snapshot.
    pub looked_at: usize,
    pub sort: Sort,
    pub busiest: Vec<FlowRow>,
}

/// All that is shown at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct Frame {
    /// Set if the router is gone: since when, and the error. The other fields then hold what was last seen.
    #[serde(skip)]
    pub gone: Option<String>,
    /// The time between the two snapshots; `None` for the first one of a dataplane.
    pub elapsed_seconds: Option<f64>,
    pub router: Router,
    /// Flows opened by all rules.
    pub flows_per_second: Option<f64>,
    /// The sums of all rules.
    pub rates: Option<Rates>,
    pub rules: Vec<RuleRow>,
    pub flows: Flows,
    /// The outcomes that packets had. Losses come first, those with the highest rate before others.
    pub outcomes: Vec<OutcomeRow>,
}

/// An earlier snapshot of the same dataplane.
struct Before<'s> {
    snapshot: &'s Snapshot,
    /// Seconds from it to the snapshot that is shown.
    seconds: f64,
}

impl Before<'_> {
    /// The rate of a counter, per second. It is 0 if the counter decreased.
    fn rate(&self, before: u64, now: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a rate is shown with 3 digits")]
        let difference = now.saturating_sub(before) as f64;
        difference / self.seconds
    }

    fn rates(&self, before: [TrafficReport; 2], now: [TrafficReport; 2]) -> Rates {
        let rate = |direction: usize| Rate {
            packets_per_second: self.rate(before[direction].packets, now[direction].packets),
            bits_per_second: self.rate(before[direction].bytes, now[direction].bytes) * 8.0,
        };
        Rates {
            original: rate(0),
            reply: rate(1),
        }
    }
}

impl Frame {
    /// The state at `now`, with rates since `before`. If the snapshots are of two dataplanes, there are no rates.
    pub fn between(before: Option<&Snapshot>, now: &Snapshot, sort: Sort) -> Self {
        let before = before.and_then(|snapshot| {
            let elapsed = now.taken.saturating_sub(snapshot.taken);
            let is_same = snapshot.started_ns == now.started_ns && elapsed > Duration::ZERO;
            is_same.then_some(Before {
                snapshot,
                seconds: elapsed.as_secs_f64(),
            })
        });
        let before = before.as_ref();
        let rules = rules(before, now);
        let (flows_per_second, rates) = total(&rules);
        Self {
            gone: None,
            elapsed_seconds: before.map(|before| before.seconds),
            router: now.router.clone(),
            flows_per_second,
            rates,
            rules,
            flows: flows(before, now, sort),
            outcomes: outcomes(before, now),
        }
    }
}

fn rules(before: Option<&Before<'_>>, now: &Snapshot) -> Vec<RuleRow> {
    let row = |rule: &RuleReport| {
        let known = before.and_then(|before| {
            let mut rules = before.snapshot.rules.iter();
            Some((before, rules.find(|it| it.id == rule.id)?))
        });
        RuleRow {
            rule: rule.clone(),
            flows_per_second: known.map(|(before, it)| before.rate(it.flows, rule.flows)),
            rates: known.map(|(before, it)| {
                before.rates([it.original, it.reply], [rule.original, rule.reply])
            }),
        }
    };
    now.rules.iter().map(row).collect()
}

/// The sums of all rules. The fallbacks of both families are one rule, with one set of counters.
fn total(rules: &[RuleRow]) -> (Option<f64>, Option<Rates>) {
    let add = |one: Rate, other: Rate| Rate {
        packets_per_second: one.packets_per_second + other.packets_per_second,
        bits_per_second: one.bits_per_second + other.bits_per_second,
    };
    let mut ids = HashSet::new();
    let mut total = (None, None);
    for row in rules.iter().filter(|row| ids.insert(row.rule.id)) {
        if let Some(flows) = row.flows_per_second {
            *total.0.get_or_insert(0.0) += flows;
        }
        if let Some(rates) = row.rates {
            let sum = total.1.get_or_insert_with(Rates::default);
            sum.original = add(sum.original, rates.original);
            sum.reply = add(sum.reply, rates.reply);
        }
    }
    total
}

fn flows(before: Option<&Before<'_>>, now: &Snapshot, sort: Sort) -> Flows {
    let known: HashMap<_, _> = before
        .iter()
        .flat_map(|before| &before.snapshot.flows)
        .map(|flow| (flow.key(), flow))
        .collect();
    let rates = |flow: &FlowReport| {
        let before = before?;
        let counters = match known.get(&flow.key()) {
            // A flow that was reopened in between counts from zero, as a new one does.
            Some(it) if it.age_seconds <= flow.age_seconds => [it.original, it.reply],
            None if !is_new(before, flow) => return None,
            _ => [TrafficReport::default(); 2],
        };
        Some(before.rates(counters, [flow.original, flow.reply]))
    };
    // The kernel may return a flow twice while others end.
    let mut met = HashSet::new();
    let mut rows: Vec<_> = now
        .flows
        .iter()
        .filter(|flow| met.insert(flow.key()))
        .map(|flow| (flow, rates(flow)))
        .collect();
    let looked_at = rows.len();
    rows.sort_by_cached_key(|(flow, rates)| (rank(sort, flow, *rates), flow.key()));
    rows.truncate(BUSIEST);
    Flows {
        total: now.has_all_flows.then_some(looked_at),
        looked_at,
        sort,
        busiest: rows
            .into_iter()
            .map(|(flow, rates)| FlowRow {
                flow: flow.clone(),
                rates,
            })
            .collect(),
    }
}

/// Returns `true` if a flow was opened after `before`. If that snapshot has only some flows, the flow's age in whole
/// seconds decides.
fn is_new(before: &Before<'_>, flow: &FlowReport) -> bool {
    before.snapshot.has_all_flows
        || Duration::from_secs(flow.age_seconds + 1).as_secs_f64() <= before.seconds
}

/// Lower ranks come first. Without rates the totals decide.
fn rank(sort: Sort, flow: &FlowReport, rates: Option<Rates>) -> Reverse<[u64; 2]> {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate is not negative, and a cast saturates"
    )]
    let rate = |value: fn(&Rate) -> f64| {
        rates.map_or(0, |it| {
            (value(&it.original) + value(&it.reply)).round() as u64
        })
    };
    let sum =
        |value: fn(&TrafficReport) -> u64| value(&flow.original).saturating_add(value(&flow.reply));
    let bytes = sum(|traffic| traffic.bytes);
    Reverse(match sort {
        Sort::Rate => [rate(|rate| rate.bits_per_second), bytes],
        Sort::PacketRate => [
            rate(|rate| rate.packets_per_second),
            sum(|traffic| traffic.packets),
        ],
        Sort::Bytes => [bytes, 0],
        Sort::Newest => [u64::MAX - flow.age_seconds, bytes],
    })
}

fn outcomes(before: Option<&Before<'_>>, now: &Snapshot) -> Vec<OutcomeRow> {
    let rate = |outcome: &OutcomeReport| {
        let before = before?;
        let mut outcomes = before.snapshot.outcomes.iter();
        let known = outcomes.find(|it| it.name == outcome.name)?;
        Some(before.rate(known.packets, outcome.packets))
    };
    let mut rows: Vec<_> = now
        .outcomes
        .iter()
        .filter(|outcome| outcome.packets > 0)
        .map(|outcome| OutcomeRow {
            outcome: outcome.clone(),
            packets_per_second: rate(outcome),
        })
        .collect();
    rows.sort_by(|one, other| {
        let rate = |row: &OutcomeRow| row.packets_per_second.unwrap_or_default();
        (one.is_pass().cmp(&other.is_pass()))
            .then(rate(other).total_cmp(&rate(one)))
            .then(other.outcome.packets.cmp(&one.outcome.packets))
            .then_with(|| one.outcome.name.cmp(&other.outcome.name))
    });
    rows
}

#[cfg(test)]
mod tests {
    use super::{
        super::examples::{flow, outcome, rule, snapshot, traffic},
        *,
    };

    fn between(before: &Snapshot, now: &Snapshot) -> Frame {
        Frame::between(Some(before), now, Sort::Rate)
    }

    fn ports(frame: &Frame) -> Vec<u16> {
        let flows = frame.flows.busiest.iter();
        flows.map(|row| row.flow.client.port).collect()
    }

    #[test]
    fn rates_are_differences_per_second() {
        let (mut before, mut now) = (snapshot(10), snapshot(12));
        before.rules = vec![rule(0, 5), rule(1, 100)];
        now.rules = vec![rule(0, 9), rule(1, 100)];
        let frame = between(&before, &now);
        assert_eq!(frame.elapsed_seconds, Some(2.0));
        assert_eq!(frame.rules[0].flows_per_second, Some(2.0));
        let expected = Rates {
            original: Rate {
                packets_per_second: 20.0,
                bits_per_second: 160_000.0,
            },
            reply: Rate {
                packets_per_second: 2.0,
                bits_per_second: 16_000.0,
            },
        };
        assert_eq!(frame.rules[0].rates, Some(expected));
        assert_eq!(frame.rules[1].rates, Some(Rates::default()));
        assert_eq!(frame.rates, Some(expected));
        assert_eq!(frame.flows_per_second, Some(2.0));
    }

    #[test]
    fn the_first_snapshot_has_totals_and_no_rates() {
        let mut now = snapshot(10);
        now.flows = vec![flow(1, 5), flow(2, 9)];
        let frame = Frame::between(None, &now, Sort::Rate);
        assert_eq!((frame.rates, frame.rules[0].rates), (None, None));
        assert_eq!(ports(&frame), [2, 1]);
    }

    #[test]
    fn another_dataplane_has_no_rates_yet() {
        let (mut before, mut now) = (snapshot(10), snapshot(11));
        before.rules = vec![rule(0, 5)];
        now.rules = vec![rule(0, 500)];
        now.started_ns += 1;
        let frame = between(&before, &now);
        assert_eq!((frame.elapsed_seconds, frame.rates), (None, None));
    }

    #[test]
    fn decreasing_counters_and_stopped_clocks_give_no_absurd_rates() {
        let (mut before, mut now) = (snapshot(10), snapshot(11));
        before.rules = vec![rule(0, 500)];
        now.rules = vec![rule(0, 5)];
        assert_eq!(between(&before, &now).rates, Some(Rates::default()));
        now.taken = before.taken;
        assert_eq!(between(&before, &now).rates, None);
    }

    #[test]
    fn the_fallbacks_of_both_families_count_once() {
        let (mut before, mut now) = (snapshot(10), snapshot(11));
        before.rules = vec![rule(7, 0), rule(7, 0)];
        now.rules = vec![rule(7, 3), rule(7, 3)];
        assert_eq!(between(&before, &now).flows_per_second, Some(3.0));
    }

    #[test]
    fn a_rule_that_is_new_has_no_rate_yet() {
        let (before, mut now) = (snapshot(10), snapshot(11));
        now.rules = vec![rule(0, 0), rule(1, 1_000_000)];
        assert_eq!(between(&before, &now).rules[1].rates, None);
    }

    #[test]
    fn the_busiest_now_come_before_those_with_the_most_bytes() {
        let (mut before, mut now) = (snapshot(10), snapshot(11));
        before.flows = vec![flow(1, 1000), flow(2, 10)];
        now.flows = vec![flow(1, 1000), flow(2, 20)];
        assert_eq!(ports(&between(&before, &now)), [2, 1]);
        let by_bytes = Frame::between(Some(&before), &now, Sort::Bytes);
        assert_eq!(ports(&by_bytes), [1, 2]);
    }

    #[test]
    fn a_flow_that_was_opened_in_between_counts_from_zero() {
        let (mut before, mut now) = (snapshot(10), snapshot(12));
        // The second one's client has closed its connection and uses the port again.
        before.flows = vec![flow(2, 1000)];
        now.flows = vec![flow(1, 10), flow(2, 10)];
        now.flows[1].age_seconds = 1;
        for row in between(&before, &now).flows.busiest {
            let rate = row.rates.unwrap().original.packets_per_second;
            assert!((rate - 5.0).abs() < 1e-9, "{rate}");
        }
    }

    #[test]
    fn if_a_snapshot_has_only_some_flows_a_new_one_must_be_young() {
        let (mut before, mut now) = (snapshot(10), snapshot(12));
        before.has_all_flows = false;
        now.flows = vec![flow(1, 1_000_000), flow(2, 10)];
        now.flows[1].age_seconds = 1;
        let frame = between(&before, &now);
        let is_known: Vec<_> = frame
            .flows
            .busiest
            .iter()
            .map(|row| row.rates.is_some())
            .collect();
        assert_eq!((ports(&frame), is_known), (vec![2, 1], vec![true, false]));
    }

    #[test]
    fn only_the_first_flows_are_kept_and_duplicates_are_removed() {
        let mut now = snapshot(10);
        now.flows = (1..=1000)
            .chain(1..=10)
            .map(|port| flow(port, port.into()))
            .collect();
        now.has_all_flows = false;
        let flows = Frame::between(None, &now, Sort::Bytes).flows;
        assert_eq!((flows.looked_at, flows.total), (1000, None));
        assert_eq!(flows.busiest.len(), BUSIEST);
        assert_eq!(flows.busiest[0].flow.client.port, 1000);
    }

    #[test]
    fn current_losses_come_first_and_unused_outcomes_are_left_out() {
        let (mut before, mut now) = (snapshot(10), snapshot(11));
        before.outcomes = ["much", "now", "never", "passed"]
            .map(|name| outcome(name, 0))
            .into();
        before.outcomes[0].packets = 1000;
        now.outcomes = before.outcomes.clone();
        now.outcomes[1].packets = 5;
        now.outcomes[3].packets = 1000;
        now.outcomes[3].verdict = "pass";
        let frame = between(&before, &now);
        let names: Vec<_> = frame
            .outcomes
            .iter()
            .map(|row| &*row.outcome.name)
            .collect();
        assert_eq!(names, ["now", "much", "passed"]);
        assert_eq!(frame.outcomes[0].packets_per_second, Some(5.0));
    }

    #[test]
    fn the_greatest_counters_do_no_harm() {
        let (before, mut now) = (snapshot(10), snapshot(11));
        now.rules[0].original = traffic(u64::MAX, u64::MAX);
        now.rules[0].reply = traffic(u64::MAX, u64::MAX);
        now.flows = vec![flow(1, 0)];
        now.flows[0].original = traffic(u64::MAX, u64::MAX);
        now.flows[0].reply = traffic(u64::MAX, u64::MAX);
        let frame = between(&before, &now);
        assert!(frame.rates.unwrap().original.bits_per_second.is_finite());
    }
}
