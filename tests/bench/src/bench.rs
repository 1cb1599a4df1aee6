//! The measurement: contenders side by side, in rounds, each round in another random order.

use std::io::{IsTerminal as _, Write as _, stderr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use egress_tests::cpu;
use nix::sched::{sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::contender::{Absent, Contender, Load, Testbed};
use crate::kernel::Object;
use crate::report::Row;
use crate::stats::{Better, Samples};

/// The thoroughness of a measurement.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The number of samples of each contender.
    pub rounds: usize,
    /// The duration of a sample.
    pub burst: Duration,
}

impl Plan {
    /// For reliable figures.
    pub const FULL: Self = Self {
        rounds: 24,
        burst: Duration::from_millis(400),
    };
    /// For a first impression.
    pub const QUICK: Self = Self {
        rounds: 8,
        burst: Duration::from_millis(200),
    };
}

/// What all cases share.
#[derive(Debug)]
pub struct Bench {
    /// The thoroughness.
    pub plan: Plan,
    /// The benchmarks' own kernel programs.
    pub object: Object,
    /// The CPU for everything in a sample that should share one.
    pub cpu: usize,
    /// Another CPU, for receivers; the same if there is only one.
    pub other_cpu: usize,
    random: fastrand::Rng,
}

/// The testbeds of the contenders that are available, and a row for each of the others.
#[derive(Debug)]
pub struct Testbeds {
    /// The available contenders, each in its lab.
    pub testbeds: Vec<Testbed>,
    /// The rows of the other contenders, with the reason.
    pub skipped: Vec<Row>,
}

impl Bench {
    /// A bench that measures according to `plan`.
    pub fn new(plan: Plan, object: Object) -> Result<Self> {
        // The last CPUs, because the first one handles most interrupts.
        let mut cpus = cpu::usable()?.into_iter().rev();
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
    pub fn testbeds(&self, contenders: &[Contender], load: Load) -> Result<Testbeds> {
        let mut built = Testbeds {
            testbeds: Vec::new(),
            skipped: Vec::new(),
        };
        for &contender in contenders {
            progress(&format!("building the lab of {}", contender.name()));
            match Testbed::build(contender, load, &self.object) {
                Ok(testbed) => built.testbeds.push(testbed),
                Err(error) => match error.downcast_ref::<Absent>() {
                    Some(Absent(reason)) => built
                        .skipped
                        .push(Row::skipped(contender.name(), Some(reason.clone()))),
                    None => return Err(error),
                },
            }
        }
        Ok(built)
    }

    /// Like [`Bench::interleave`], with at most `limit` rounds and one value in a sample. Returns the number of rounds,
    /// too.
    pub fn interleave_few<S>(
        &mut self,
        limit: usize,
        what: &str,
        better: Better,
        subjects: &mut [S],
        mut sample: impl FnMut(&mut S) -> Result<f64>,
    ) -> Result<(usize, Samples)> {
        let plan = self.plan;
        self.plan.rounds = plan.rounds.min(limit);
        let rounds = self.plan.rounds;
        let samples = self.interleave(what, better, subjects, |subject| Ok([sample(subject)?]));
        self.plan = plan;
        let [samples] = samples?;
        Ok((rounds, samples))
    }

    /// Takes a sample of `N` values of every subject in each round, in random order, after a warm-up round. Returns the
    /// samples of each value, by subject.
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

impl Testbeds {
    /// The available contenders.
    pub fn contenders(&self) -> Vec<Contender> {
        self.testbeds
            .iter()
            .map(|testbed| testbed.contender)
            .collect()
    }
}

/// Runs `work` on one CPU.
pub fn pinned<T>(cpu: usize, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let this = Pid::from_raw(0);
    let before = sched_getaffinity(this)?;
    cpu::pin(cpu)?;
    let result = work();
    sched_setaffinity(this, &before).context("restoring a thread's CPUs")?;
    result
}

/// Takes samples for the duration of `burst` and returns the value that represents them.
///
/// Bursts are divided into slices, because another task that takes the CPU for a while spoils only some of them.
pub fn robust_rate(burst: Duration, mut slice: impl FnMut() -> Result<f64>) -> Result<f64> {
    let start = Instant::now();
    let mut rates = Vec::new();
    while start.elapsed() < burst {
        rates.push(slice()?);
    }
    Ok(Better::Higher.robust(&rates))
}

/// Shows the current step on a terminal, in place of the last one.
pub fn progress(what: &str) {
    let mut stderr = stderr();
    if stderr.is_terminal() {
        // An error is ignored: nobody reads a closed terminal.
        let _ = write!(stderr, "\r\x1b[K{what}");
        let _ = stderr.flush();
    }
}
