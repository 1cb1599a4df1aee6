//! How things are measured: contenders side by side, in rounds, each round in an order of its own.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::contender::{Absent, Contender, Load, Stand};
use crate::kernel::Object;
use crate::report::Row;
use crate::stats::{Better, Samples};

/// How thoroughly to measure.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Samples of each contender.
    pub rounds: usize,
    /// How long a sample takes.
    pub burst: Duration,
}

impl Plan {
    /// For figures to be believed.
    pub const FULL: Self = Self {
        rounds: 24,
        burst: Duration::from_millis(400),
    };
    /// For a first look.
    pub const QUICK: Self = Self {
        rounds: 8,
        burst: Duration::from_millis(200),
    };
}

/// What all cases share.
#[derive(Debug)]
pub struct Bench {
    /// How thoroughly to measure.
    pub plan: Plan,
    /// The programs for the kernel.
    pub object: Object,
    /// The CPU that everything of a sample happens on which is not to be spread.
    pub cpu: usize,
    /// Another one, for receivers; the same where there is no other.
    pub other_cpu: usize,
    random: fastrand::Rng,
}

/// The contenders of a case that there are, and rows for those that there are not.
#[derive(Debug)]
pub struct Field {
    /// Each in its lab.
    pub stands: Vec<Stand>,
    /// Why others are missing.
    pub skipped: Vec<Row>,
}

impl Bench {
    /// A bench that measures by `plan`.
    pub fn new(plan: Plan, object: Object) -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0))?;
        // The last ones: the first has most interrupts.
        let mut cpus = (0..CpuSet::count())
            .rev()
            .filter(|&cpu| allowed.is_set(cpu).unwrap_or(false));
        let cpu = cpus.next().context("this process may use no CPU")?;
        let other_cpu = cpus.next().unwrap_or(cpu);
        Ok(Self {
            plan,
            object,
            cpu,
            other_cpu,
            random: fastrand::Rng::new(),
        })
    }

    /// Builds the labs of these contenders.
    pub fn field(&self, contenders: &[Contender], load: Load) -> Result<Field> {
        let mut field = Field {
            stands: Vec::new(),
            skipped: Vec::new(),
        };
        for &contender in contenders {
            progress(&format!("building the lab of {}", contender.name()));
            match Stand::build(contender, load, &self.object) {
                Ok(stand) => field.stands.push(stand),
                Err(error) => match error.downcast_ref::<Absent>() {
                    Some(Absent(reason)) => field
                        .skipped
                        .push(Row::skipped(contender.name(), Some(reason.clone()))),
                    None => return Err(error),
                },
            }
        }
        Ok(field)
    }

    /// Takes a sample of `N` values of every subject in each of the rounds, in random order, after one that does not
    /// count. Gives the samples of each value, by subject.
    pub fn interleave<S, const N: usize>(
        &mut self,
        what: &str,
        better: Better,
        subjects: &mut [S],
        mut sample: impl FnMut(&mut S) -> Result<[f64; N]>,
    ) -> Result<[Samples; N]> {
        let mut values = vec![vec![Vec::new(); subjects.len()]; N];
        let mut order: Vec<usize> = (0..subjects.len()).collect();
        let start = Instant::now();
        for round in 0..=self.plan.rounds {
            progress(&format!(
                "{what}: round {round} of {}, {:.0} s",
                self.plan.rounds,
                start.elapsed().as_secs_f64()
            ));
            self.random.shuffle(&mut order);
            for &subject in &order {
                let sampled = sample(&mut subjects[subject])?;
                if round > 0 {
                    for (values, value) in values.iter_mut().zip(sampled) {
                        values[subject].push(value);
                    }
                }
            }
        }
        let mut values = values.into_iter();
        Ok(std::array::from_fn(|_| {
            Samples::new(better, values.next().unwrap_or_default())
        }))
    }
}

impl Field {
    /// Who is there.
    pub fn contenders(&self) -> Vec<Contender> {
        self.stands.iter().map(|stand| stand.contender).collect()
    }
}

/// Does `work` on one CPU only.
pub fn pinned<T>(cpu: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this)?;
    pin(cpu)?;
    let result = work();
    sched_setaffinity(this, &before).context("giving a thread its CPUs back")?;
    result
}

/// Keeps the calling thread on one CPU.
pub fn pin(cpu: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &only)
        .with_context(|| format!("keeping a thread on CPU {cpu}"))
}

/// Says on a terminal what is going on, in place of what it said last.
pub fn progress(what: &str) {
    let mut stderr = stderr();
    if stderr.is_terminal() {
        // If the terminal is gone, there is nobody to tell.
        let _ = write!(stderr, "\r\x1b[K{what}");
        let _ = stderr.flush();
    }
}
