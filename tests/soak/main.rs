//! Sends mixed traffic through a router for a given time, with changes around it, and checks at the end for leaks.
//!
//! `cargo xtask soak --minutes 20` builds and starts it.

mod actions;
mod router;

use std::io::{IsTerminal as _, Write as _, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use egress_tests::requirements::{missing, raise_open_file_limit};

use crate::actions::{Action, Traffic};

/// Soaks an egress router in mixed traffic
#[derive(Parser)]
struct Arguments {
    /// How long to run, in minutes
    #[arg(long, default_value_t = 20)]
    minutes: u64,

    /// The seed of the random numbers, to repeat a run
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// The memory that a process may gain over time, because its allocator keeps it.
const SLACK_KIB: u64 = 8 * 1024;

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(reason) = missing() {
        println!("skipped: soak: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    raise_open_file_limit()?;
    let mut random = fastrand::Rng::with_seed(arguments.seed);
    let mut traffic = Traffic::new()?;
    println!(
        "soaking for {} minutes, seed {}",
        arguments.minutes, arguments.seed
    );
    // Runs every action once, so that one-time allocations do not look like leaks.
    for action in Action::ALL {
        traffic
            .perform(action, &mut random)
            .with_context(|| format!("warming up: {action:?}"))?;
    }
    traffic.restart(&mut random)?;
    let before = traffic.router().usage()?;

    let start = Instant::now();
    let end = start + Duration::from_secs(arguments.minutes * 60);
    let mut done = 0_u64;
    let mut shown = start;
    while Instant::now() < end {
        let action = Action::ALL[random.usize(..Action::ALL.len())];
        traffic
            .perform(action, &mut random)
            .with_context(|| format!("action {done}, {action:?}, seed {}", arguments.seed))?;
        done += 1;
        let interval = if stdout().is_terminal() { 1 } else { 60 };
        if shown.elapsed() > Duration::from_secs(interval) {
            shown = Instant::now();
            show_progress(done, start, &traffic)?;
        }
    }
    let counts = traffic.counts();
    let peak = traffic.router().usage()?;
    traffic.close_all();
    let left = traffic.router().wait_until_drained()?;
    let after = traffic.router().usage()?;

    println!();
    for (action, count) in counts {
        println!("{count:>8}  {action:?}");
    }
    println!("flows      {} at most, {left} left", traffic.most_flows());
    println!(
        "memory     {} KiB before, {} KiB under load, {} KiB after",
        before.memory_kib, peak.memory_kib, after.memory_kib
    );
    println!(
        "open files {} before, {} under load, {} after",
        before.files, peak.files, after.files
    );
    ensure!(left == 0, "{left} flows are left without traffic");
    ensure!(
        after.files == before.files,
        "{} open files became {}",
        before.files,
        after.files
    );
    if after.memory_kib > before.memory_kib + SLACK_KIB {
        bail!("{} KiB became {} KiB", before.memory_kib, after.memory_kib);
    }
    println!("{done} actions, and nothing is left behind.");
    Ok(ExitCode::SUCCESS)
}

fn show_progress(done: u64, start: Instant, traffic: &Traffic) -> Result<()> {
    let line = format!(
        "{:>5} s  {done} actions, {} connections open",
        start.elapsed().as_secs(),
        traffic.open_connections()
    );
    if stdout().is_terminal() {
        print!("\r{line}\u{1b}[K");
    } else {
        println!("{line}");
    }
    Ok(stdout().flush()?)
}
