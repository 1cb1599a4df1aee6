//! The tables in `docs/packet-flow.md` say what the code does.

use egress_common::{FlowState, Outcome, Timeouts, Verdict, tcp::State};

const PACKET_FLOW: &str = include_str!("../docs/packet-flow.md");

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
        FlowState::Unreplied,
        FlowState::Replied,
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
    let documented: Vec<_> = rows("### TCP states and timeouts")
        .into_iter()
        .map(|(name, cells)| (name, cells[1].to_owned()))
        .collect();
    assert_eq!(documented, actual);
}
