//! What came of a run.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use crate::known::KNOWN;

/// What came of it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What all scripts were made from.
    pub seed: u64,
    /// How many packets were sent into each lab.
    pub packets: u64,
    /// How many flows they were of.
    pub flows: u64,
    /// How many packets left the routers and were compared.
    pub compared: u64,
    /// How many events both routers treated alike.
    pub alike: u64,
    /// How many differences there were of each known class.
    pub explained: BTreeMap<String, u64>,
    /// Differences that no class explains, by what they look like.
    pub unexplained: BTreeMap<String, Unexplained>,
    /// Differences that did not come back when their script was played again.
    pub unconfirmed: BTreeMap<String, Unexplained>,
    /// What happened in the script that was asked for.
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
    /// The shortest script that was found to show it.
    pub example: String,
}

impl Report {
    /// Whether every difference is known.
    pub fn is_explained(&self) -> bool {
        self.unexplained.is_empty()
    }

    /// How many differences no class explains.
    pub fn unexplained_count(&self) -> u64 {
        self.unexplained.values().map(|kind| kind.count).sum()
    }

    /// How many differences are known.
    pub fn explained_count(&self) -> u64 {
        self.explained.values().sum()
    }

    /// That of no packet yet.
    pub fn of(seed: u64) -> Self {
        Self {
            seed,
            ..Self::default()
        }
    }

    /// Takes in what another part of the run came to.
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
                "NOT SEEN AGAIN when played again, so not counted",
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
