//! Restarts, upgrades, kills and changes of the spec under live traffic. `EGRESS_TEST_RESTARTS` sets how many of each.

use std::{env, thread, time::Duration};

use anyhow::{Context as _, Result};
use egress_tests::addresses::{NETWORKS, V4};
use egress_tests::{Lab, Spec, skip_unless_lab_works};
use nix::sys::signal::Signal;

use crate::live::Live;
use crate::pod::Pod;

/// The default of `EGRESS_TEST_RESTARTS`.
const ROUNDS: usize = 3;
const CONNECTIONS: usize = 1000;
/// The longest delay before a round, so that a kill comes at a random moment.
const LONGEST_WAIT: Duration = Duration::from_millis(300);

fn rounds() -> Result<usize> {
    match env::var("EGRESS_TEST_RESTARTS") {
        Ok(number) => number
            .parse()
            .context("EGRESS_TEST_RESTARTS is not a number"),
        Err(_) => Ok(ROUNDS),
    }
}

/// Checks that no traffic is lost while `round` is repeated.
fn lose_nothing(
    options: &[&str],
    mut round: impl FnMut(&mut Pod<'_>, usize) -> Result<()>,
) -> Result<()> {
    let lab = Lab::new()?;
    let mut pod = Pod::start_in(&lab, options)?;
    let live = Live::open(&lab, &V4, CONNECTIONS)?;
    let rounds = rounds()?;
    let counted = live.during(|| {
        (0..rounds).try_for_each(|number| {
            round(&mut pod, number).with_context(|| format!("round {number}"))
        })
    })?;
    eprintln!("{rounds} rounds: {counted:?}");
    Ok(())
}

#[test]
fn a_killed_router_is_started_again_and_nothing_is_lost() -> Result<()> {
    skip_unless_lab_works!();
    lose_nothing(&[], |pod, _| {
        thread::sleep(LONGEST_WAIT.mul_f64(fastrand::f64()));
        pod.end(Signal::SIGKILL)?;
        pod.start(&[])
    })
}

#[test]
fn a_router_that_is_killed_while_it_starts_or_reloads_loses_nothing() -> Result<()> {
    skip_unless_lab_works!();
    let specs = specs();
    lose_nothing(&[], |pod, number| {
        pod.write_spec(&specs[number % 2])?;
        pod.signal(Signal::SIGHUP)?;
        thread::sleep(Duration::from_millis(fastrand::u64(..5)));
        pod.end(Signal::SIGKILL)?;
        pod.start_and_kill(LONGEST_WAIT.mul_f64(fastrand::f64()))?;
        pod.start(&[])
    })
}

#[test]
fn an_upgrade_to_another_program_loses_nothing() -> Result<()> {
    skip_unless_lab_works!();
    lose_nothing(&["--keep"], |pod, number| {
        pod.end(Signal::SIGTERM)?;
        // The kernel half's log level is fixed when it is loaded, so another level makes another program.
        let level = ["debug", "info"][number % 2];
        pod.start(&["--keep", "--log-level", level])
    })
}

#[test]
fn a_change_of_the_spec_loses_nothing() -> Result<()> {
    skip_unless_lab_works!();
    let specs = specs();
    lose_nothing(&[], |pod, number| pod.reload(&specs[number % 2]))
}

/// Two specs with the rules of the traffic and other rules that differ.
fn specs() -> [String; 2] {
    [7000, 20_000].map(|first| {
        let mut spec = Spec::dual_stack();
        for network in NETWORKS {
            spec.rules.extend((first..first + 500).map(|port| {
                let mut rule = network.http();
                rule.port = port;
                rule
            }));
        }
        // Reverses the order, so that a rule that stays moves within the spec.
        if first == 20_000 {
            spec.rules.reverse();
        }
        spec.yaml()
    })
}
