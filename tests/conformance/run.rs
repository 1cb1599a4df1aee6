//! Plays scripts in twin labs and records the results.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use egress_tests::cpu;

use crate::compare::Case;
use crate::family::Family;
use crate::generate;
use crate::known::explain;
use crate::report::{Report, Unexplained};
use crate::script::{Event, Script, Slot};
use crate::twin::{Bindings, Twin};

/// The labs are rebuilt after this many scripts, so that flows never fill a table.
const SCRIPTS_OF_A_LAB: u32 = Slot::COUNT - 1_000;
/// The maximum number of replays to shorten a script.
const REPLAYS: u32 = 60;
/// The number of replays in which a difference must recur. Otherwise it is not the script's: a packet hit a NAT port
/// that happened to belong to another script.
const CONFIRMATIONS: u32 = 3;

/// The labs: the family of the packets, and whether ports without a rule have a server. The remainder of a script's
/// number selects the lab.
const LABS: [(Family, bool); 4] = [
    (Family::V4, true),
    (Family::V4, false),
    (Family::V6, true),
    (Family::V6, false),
];

/// The options of a run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The total number of packets.
    pub packets: u64,
    /// The seed of all scripts.
    pub seed: u64,
    /// The families of the packets.
    pub families: Vec<Family>,
    /// Play only the script with this number.
    pub script: Option<u64>,
}

/// The progress of a run, for the user.
#[derive(Debug, Default)]
pub struct Progress {
    /// Packets sent into each lab.
    pub packets: AtomicU64,
    /// Explained differences.
    pub explained: AtomicU64,
    /// Unexplained differences.
    pub unexplained: AtomicU64,
}

impl Progress {
    fn add(&self, part: &Report) {
        self.packets.fetch_add(part.packets, Ordering::Relaxed);
        self.explained
            .fetch_add(part.explained_count(), Ordering::Relaxed);
    }
}

/// Runs as many scripts as `options` asks for, and calls `show_progress` about once a second.
///
/// # Errors
/// When the labs cannot be built, or a router no longer forwards anything.
pub fn run(options: &Options, show_progress: impl Fn(&Progress)) -> Result<Report> {
    let progress = Progress::default();
    let wanted: Vec<_> = (0..)
        .zip(LABS)
        .filter(|(_, (family, _))| options.families.contains(family))
        .collect();
    let share = options.packets.div_ceil(wanted.len().max(1) as u64);
    let cpus = cpu::usable()?;
    let parts = thread::scope(|scope| {
        let mut running = Vec::new();
        for (index, labs) in wanted {
            let cpu = cpus[index % cpus.len()];
            let worker = Worker::new(options, labs, &progress);
            running.push(scope.spawn(move || {
                // One CPU keeps packets in order.
                cpu::pin(cpu)?;
                worker.run(numbers(options.script, index), share)
            }));
        }
        let mut shown = Instant::now();
        while running.iter().any(|worker| !worker.is_finished()) {
            thread::sleep(Duration::from_millis(20));
            if shown.elapsed() > Duration::from_secs(1) {
                shown = Instant::now();
                show_progress(&progress);
            }
        }
        running
            .into_iter()
            .map(|worker| worker.join().expect("a worker does not panic"))
            .collect::<Result<Vec<_>>>()
    })?;
    let mut report = Report::of(options.seed);
    for part in parts {
        report.add(part);
    }
    Ok(report)
}

/// The numbers of the scripts for the labs with this index.
fn numbers(only: Option<u64>, index: usize) -> impl Iterator<Item = u64> {
    let (index, count) = (index as u64, LABS.len() as u64);
    let range = match only {
        Some(number) if number % count == index => number..number + 1,
        Some(_) => 0..0,
        None => index..u64::MAX,
    };
    range.step_by(LABS.len())
}

/// Plays scripts in one pair of labs.
struct Worker<'w> {
    options: &'w Options,
    family: Family,
    fallback: bool,
    progress: &'w Progress,
    report: Report,
    slot: u32,
    twin: Option<Twin>,
}

impl<'w> Worker<'w> {
    fn new(options: &'w Options, labs: (Family, bool), progress: &'w Progress) -> Self {
        let (family, fallback) = labs;
        Self {
            options,
            family,
            fallback,
            progress,
            report: Report::of(options.seed),
            slot: 0,
            twin: None,
        }
    }

    fn run(mut self, numbers: impl Iterator<Item = u64>, packets: u64) -> Result<Report> {
        let seed = self.options.seed;
        for number in numbers {
            if self.report.packets >= packets {
                break;
            }
            let script = generate::script(seed, number, self.family);
            self.judge(number, &script)
                .with_context(|| format!("script {number} of seed {seed}"))?;
        }
        Ok(self.report)
    }

    /// Returns both labs, rebuilt if they have played enough scripts, and their next slot.
    fn twin(&mut self) -> Result<(&mut Twin, Slot)> {
        if self.slot >= SCRIPTS_OF_A_LAB {
            (self.slot, self.twin) = (0, None);
        }
        self.slot += 1;
        let twin = match self.twin.take() {
            Some(twin) => twin,
            None => Twin::start(self.family, self.fallback)?,
        };
        Ok((self.twin.insert(twin), Slot(self.slot)))
    }

    /// Plays a script and records the differences.
    fn judge(&mut self, number: u64, script: &Script) -> Result<()> {
        let mut part = Report::of(self.options.seed);
        part.flows = script.flows.len() as u64;
        let mut story = String::new();
        let mut unexplained = Vec::new();
        self.play(script, |case| {
            part.packets += case.event.packet_count();
            part.compared += case.outcome.packet_count();
            if !case.differs() {
                part.alike += 1;
                story += &alike_line(case.event);
                return;
            }
            story += &case.describe();
            match explain(case) {
                Some(known) => {
                    *part.explained.entry(known.name.to_owned()).or_default() += 1;
                    let _ = writeln!(story, "    known as {}", known.name);
                }
                None => unexplained.push((case.signature(), story.clone())),
            }
        })?;
        self.progress.add(&part);
        self.report.add(part);
        for (signature, story) in unexplained {
            self.account(number, script, signature, story)?;
        }
        if self.options.script.is_some() {
            self.report.story = Some(story);
        }
        Ok(())
    }

    /// Plays a script until the routers' states differ.
    fn play(&mut self, script: &Script, mut see: impl FnMut(&Case<'_>)) -> Result<()> {
        let (twin, slot) = self.twin()?;
        let mut bindings = Bindings::of(script, slot);
        for event in &script.events {
            let outcome = twin.play(script, slot, event, &mut bindings)?;
            let case = Case {
                script,
                event,
                outcome: &outcome,
            };
            see(&case);
            if case.parts_ways() {
                break;
            }
        }
        Ok(())
    }

    fn account(
        &mut self,
        number: u64,
        script: &Script,
        signature: String,
        example: String,
    ) -> Result<()> {
        if let Some(known) = self.report.unexplained.get_mut(&signature) {
            known.count += 1;
        } else if let Some(example) = self.confirm(script, &signature)? {
            let kind = Unexplained {
                count: 1,
                script: number,
                example,
            };
            self.report.unexplained.insert(signature, kind);
        } else {
            let kind = self.report.unconfirmed.entry(signature).or_default();
            kind.count += 1;
            (kind.script, kind.example) = (number, example);
            return Ok(());
        }
        self.progress.unexplained.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the shortest script found that shows this difference. `None` if it does not recur.
    fn confirm(&mut self, script: &Script, signature: &str) -> Result<Option<String>> {
        let mut example = String::new();
        for _ in 0..CONFIRMATIONS {
            match self.reproduce(script, signature)? {
                Some(described) => example = described,
                None => return Ok(None),
            }
        }
        let mut shortest = script.clone();
        let mut index = shortest.events.len();
        for _ in 0..REPLAYS {
            if index == 0 {
                break;
            }
            index -= 1;
            let mut shorter = shortest.clone();
            shorter.events.remove(index);
            if let Some(described) = self.reproduce(&shorter, signature)? {
                (shortest, example) = (shorter, described);
            }
        }
        Ok(Some(example))
    }

    /// Returns the description of a script's run if it shows this difference.
    fn reproduce(&mut self, script: &Script, signature: &str) -> Result<Option<String>> {
        let mut story = String::new();
        let mut shown = false;
        self.play(script, |case| {
            if shown {
                return;
            }
            shown = case.differs() && case.signature() == signature;
            if shown {
                story += &case.describe();
            } else {
                story += &alike_line(case.event);
            }
        })?;
        Ok(shown.then_some(story))
    }
}

fn alike_line(event: &Event) -> String {
    format!("  {event}\n    both the same\n")
}
