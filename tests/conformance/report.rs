//! The results of a run.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::known::KNOWN;

/// The results of a run, or of a part of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// The seed of all scripts.
    pub seed: u64,
    /// The number of packets sent into each lab.
    pub packets: u64,
    /// The number of flows of these packets.
    pub flows: u64,
    /// The number of packets that left the routers and were compared.
    pub compared: u64,
    /// The number of events that both routers handled alike.
    pub alike: u64,
    /// The number of differences of each known class.
    pub explained: BTreeMap<String, u64>,
    /// Unexplained differences, by signature.
    pub unexplained: BTreeMap<String, Unexplained>,
    /// Differences that did not recur when their script was played again.
    pub unconfirmed: BTreeMap<String, Unexplained>,
    /// What happened in the script that was selected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub story: Option<String>,
}

/// Differences of one kind.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Unexplained {
    /// How many there were.
    pub count: u64,
    /// The number of the first script that showed it.
    pub script: u64,
    /// The shortest script found that shows it.
    pub example: String,
}

impl Report {
    /// Whether no difference is unexplained.
    pub fn is_explained(&self) -> bool {
        self.unexplained.is_empty()
    }

    /// The number of unexplained differences.
    pub fn unexplained_count(&self) -> u64 {
        self.unexplained.values().map(|kind| kind.count).sum()
    }

    /// The number of explained differences.
    pub fn explained_count(&self) -> u64 {
        self.explained.values().sum()
    }

    /// A report without packets.
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// Adds the results of another part of the run.
    pub fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.flows += other.flows;
        self.compared += other.compared;
        self.alike += other.alike;
        for (name, count) in other.explained {
            *self.explained.entry(name).or_default() += count;
        }
        self.story = self.story.take().or(other.story);
        add_kinds(&mut self.unexplained, other.unexplained);
        add_kinds(&mut self.unconfirmed, other.unconfirmed);
    }
}

fn add_kinds(to: &mut BTreeMap<String, Unexplained>, from: BTreeMap<String, Unexplained>) {
    for (name, kind) in from {
        let known = to.entry(name).or_default();
        known.count += kind.count;
        if known.example.is_empty() {
            (known.example, known.script) = (kind.example, kind.script);
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (title, kinds) in [
            ("UNEXPLAINED", &self.unexplained),
            (
                "NOT REPRODUCED when played again, so not counted",
                &self.unconfirmed,
            ),
        ] {
            for (kind, found) in kinds {
                let Unexplained {
                    count,
                    script,
                    example,
                } = found;
                writeln!(
                    f,
                    "{title}: {count} × {kind}, first in script {script}\n{example}"
                )?;
            }
        }
        if let Some(story) = &self.story {
            writeln!(f, "{story}")?;
        }
        self.write_table(f)
    }
}

impl Report {
    fn write_table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:28}{:>12}  REASON", "DIFFERENCE", "COUNT")?;
        for known in KNOWN {
            if let Some(count) = self.explained.get(known.name) {
                writeln!(f, "{:28}{count:>12}  {}", known.name, known.reason.name())?;
            }
        }
        writeln!(f, "{:28}{:>12}", "unexplained", self.unexplained_count())?;
        writeln!(f)?;
        for (name, count) in [
            ("packets sent to each", self.packets),
            ("flows", self.flows),
            ("packets compared", self.compared),
            ("treated alike", self.alike),
            ("differences explained", self.explained_count()),
            ("differences unexplained", self.unexplained_count()),
        ] {
            writeln!(f, "{name:28}{count:>12}")?;
        }
        writeln!(f, "{:28}{:>12}", "seed", self.seed)
    }
}
