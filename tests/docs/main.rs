//! The documents say what the code does: tables of what it decides, and tests that exist.

mod commands;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use egress_common::{
    Address, Exchange, Flow, FlowState, Ipv4Address, Ipv6Address, Outcome, SweepItem, Timeouts,
    Tuple, Verdict, sctp, tcp::State,
};
use egress_userspace::telemetry::metrics::registry;

const COMMANDS: &str = include_str!("../../docs/commands.md");
const METRICS: &str = include_str!("../../docs/metrics.md");
const PACKET_FLOW: &str = include_str!("../../docs/packet-flow.md");
const RFC_COMPLIANCE: &str = include_str!("../../docs/rfc-compliance.md");

/// The rows of the table below a heading whose first cell is a name in backticks: that name, and the other cells.
fn rows(heading: &str) -> Vec<(&'static str, Vec<&'static str>)> {
    let (_, section) = PACKET_FLOW
        .split_once(&format!("{heading}\n"))
        .unwrap_or_else(|| panic!("docs/packet-flow.md has no heading {heading:?}"));
    let lines = section.lines().take_while(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            let (name, cells) = line.strip_prefix("| `")?.split_once("` |")?;
            let cells = cells.trim().trim_end_matches('|').split(" | ");
            Some((name, cells.map(str::trim).collect()))
        })
        .collect()
}

#[test]
fn the_table_of_outcomes_has_each_with_its_verdict() {
    let documented: Vec<_> = rows("## Outcomes")
        .into_iter()
        .map(|(name, cells)| (name, cells[0]))
        .collect();
    let actual: Vec<_> = Outcome::ALL
        .iter()
        .map(|outcome| {
            let verdict = match outcome.verdict() {
                Verdict::Pass => "pass",
                Verdict::Drop => "drop",
                Verdict::Reject => "reject",
            };
            (outcome.name(), verdict)
        })
        .collect();
    assert_eq!(documented, actual);
}

#[test]
fn the_table_of_states_has_each_with_its_timeout() {
    let states = [
        FlowState::Tcp(State::SynSent),
        FlowState::Tcp(State::SynReceived),
        FlowState::Tcp(State::Established),
        FlowState::Tcp(State::Unanswered),
        FlowState::Tcp(State::FinWait),
        FlowState::Tcp(State::CloseWait),
        FlowState::Tcp(State::TimeWait),
        FlowState::Tcp(State::Close),
        FlowState::Sctp(sctp::State::CookieWait),
        FlowState::Sctp(sctp::State::CookieEchoed),
        FlowState::Sctp(sctp::State::Established),
        FlowState::Sctp(sctp::State::Unanswered),
        FlowState::Sctp(sctp::State::Shutdown),
        FlowState::Sctp(sctp::State::Closed),
        FlowState::Udp(Exchange::Unreplied),
        FlowState::Udp(Exchange::Replied),
        FlowState::Udp(Exchange::Assured),
        FlowState::Echo(Exchange::Unreplied),
        FlowState::Echo(Exchange::Assured),
    ];
    let actual: Vec<_> = states
        .iter()
        .map(|state| {
            let seconds = state.timeout_ns(&Timeouts::default()) / 1_000_000_000;
            let timeout = match seconds {
                432_000 => "5 days".to_owned(),
                seconds => format!("{seconds} s"),
            };
            (state.name(), timeout)
        })
        .collect();
    let documented: Vec<_> = rows("### States and timeouts")
        .into_iter()
        .map(|(name, cells)| (name, cells[1].to_owned()))
        .collect();
    assert_eq!(documented, actual);
}

#[test]
fn the_memory_of_a_flow_is_that_of_its_entries_and_its_queue_item() {
    // `struct htab_elem` and `struct bucket` of `kernel/bpf/hashtab.c`.
    const HEADER: usize = 48;
    const BUCKET: usize = 16;
    fn row<A: Address>(family: &str) -> String {
        let (key, value) = (size_of::<Tuple<A>>(), size_of::<Flow<A>>());
        let item = size_of::<SweepItem<A>>();
        let flow = 2 * (HEADER + key + value + BUCKET) + item;
        format!("| {family} | {HEADER} | {key} | {value} | {item} | {flow} bytes |")
    }
    for row in [row::<Ipv4Address>("IPv4"), row::<Ipv6Address>("IPv6")] {
        assert!(
            PACKET_FLOW.contains(&row),
            "docs/packet-flow.md has no row {row}"
        );
    }
}

#[test]
fn the_table_of_metrics_has_each_with_its_type_and_labels() {
    let documented: Vec<_> = METRICS
        .lines()
        .filter(|line| line.starts_with("| `egress_router_"))
        .map(ToOwned::to_owned)
        .collect();
    let actual: Vec<_> = registry::ALL
        .iter()
        .map(|metric| {
            let kind = metric.kind.as_str();
            let labels: Vec<_> = metric.labels.iter().map(|it| format!("`{it}`")).collect();
            let labels = if labels.is_empty() {
                "none".to_owned()
            } else {
                labels.join(", ")
            };
            format!(
                "| `{}` | {kind} | {labels} | {} |",
                metric.name, metric.help
            )
        })
        .collect();
    assert_eq!(documented, actual);
}

/// Verdict and tests of each requirement.
fn requirements() -> impl Iterator<Item = (&'static str, &'static str)> {
    let is_heading = |row: &&str| row.starts_with("| requirement |") || row.starts_with("|---");
    RFC_COMPLIANCE
        .lines()
        .filter(|line| line.starts_with('|'))
        .filter(move |row| !is_heading(row))
        .map(|row| {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            match cells[..] {
                [_, verdict, tests] => (verdict, tests),
                _ => panic!("docs/rfc-compliance.md: a row without three cells: {row}"),
            }
        })
}

/// The names of all functions in the sources below a directory.
fn functions(directory: &Path, found: &mut BTreeSet<String>) -> Result<()> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("reading {}", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            functions(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path)?;
            let declared = source.lines().filter_map(|line| {
                let (name, _) = line.trim_start().strip_prefix("fn ")?.split_once('(')?;
                Some(name.to_owned())
            });
            found.extend(declared);
        }
    }
    Ok(())
}

#[test]
fn each_requirement_of_an_rfc_has_one_of_four_verdicts() {
    const VERDICTS: [&str; 4] = ["meets", "does not yet", "on purpose", "not applicable"];
    assert!(requirements().count() > 50);
    for (verdict, _) in requirements() {
        assert!(
            VERDICTS.iter().any(|known| verdict.starts_with(known)),
            "docs/rfc-compliance.md: {verdict:?} is none of {VERDICTS:?}"
        );
    }
}

#[test]
fn the_tests_that_the_rfc_tables_name_exist() -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut known = BTreeSet::new();
    for directory in ["tests", "egress-common/src", "egress-userspace/src"] {
        functions(&workspace.join(directory), &mut known)?;
    }
    let missing: BTreeSet<_> = requirements()
        // Every second part is one between backticks.
        .flat_map(|(_, tests)| tests.split('`').skip(1).step_by(2))
        .filter(|name| !known.contains(*name))
        .collect();
    assert_eq!(missing, BTreeSet::new(), "named in docs/rfc-compliance.md");
    Ok(())
}

/// The anchors of a page's headings, as Markdown renderers name them.
fn anchors(page: &str) -> BTreeSet<String> {
    let headings = page.lines().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let text = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = |it: &char| it.is_alphanumeric() || "-_ ".contains(*it);
        text.chars()
            .filter(kept)
            .collect::<String>()
            .replace(' ', "-")
    };
    headings.map(anchor).collect()
}

#[test]
fn every_link_between_pages_leads_somewhere() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut pages = Vec::new();
    for directory in ["", "docs", "docs/benchmarks", "docs/decisions"] {
        for entry in fs::read_dir(root.join(directory))? {
            pages.push(entry?.path());
        }
    }
    pages.retain(|page| page.extension().is_some_and(|it| it == "md"));
    let mut broken = Vec::new();
    for page in &pages {
        let text = fs::read_to_string(page)?;
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split_once(')'));
        for (link, _) in links.filter(|(link, _)| !link.contains("://")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => page.clone(),
                path => page.with_file_name(path),
            };
            let found = anchor.is_empty() && target.exists()
                || fs::read_to_string(target).is_ok_and(|it| anchors(&it).contains(anchor));
            if !found {
                broken.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new());
    Ok(())
}
