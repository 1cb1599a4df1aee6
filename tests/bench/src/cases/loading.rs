//! The time until traffic is redirected.

use std::time::Instant;

use anyhow::Result;
use egress_tests::{Lab, Protocol, Spec, nftables};

use crate::bench::{Bench, progress};
use crate::contender::{Load, spec};
use crate::report::{RatiosOf, Row, Table};
use crate::stats::Better;

/// Enough rounds for something this slow.
const ROUNDS: usize = 8;

struct Subject {
    name: String,
    nftables: bool,
    spec: Spec,
}

/// Measures the time until the router is ready, and the time until nftables' rules are loaded.
pub fn measure(bench: &mut Bench) -> Result<Table> {
    progress("building the lab of the starts");
    let lab = Lab::new()?;
    let mut subjects = Vec::new();
    for rules in [2, 10_000] {
        let load = Load {
            rules,
            protocol: Protocol::Udp,
            flows: 0,
            changes_ports: true,
        };
        for (name, nftables) in [("egress-router run", false), ("nft -f", true)] {
            subjects.push(Subject {
                name: format!("{name}, {rules} rules"),
                nftables,
                spec: spec(load),
            });
        }
    }
    let (rounds, samples) =
        bench.interleave_few(ROUNDS, "start", Better::Lower, &mut subjects, |subject| {
            subject.sample(&lab)
        })?;
    let rows = subjects.iter().enumerate();
    Ok(Table {
        case: "start",
        title: "From the start of the program until traffic is redirected".into(),
        unit: "ms",
        better: Better::Lower,
        rounds,
        ratios_of: RatiosOf::Value,
        rows: rows
            .map(|(index, subject)| {
                Row::of(subject.name.clone(), samples.estimate(|value| value(index)))
            })
            .collect(),
        notes: vec![
            "The router reads its spec, loads and verifies its programs, fills the maps and attaches."
                .into(),
        ],
        harness_error: None,
    })
}

impl Subject {
    /// The time in milliseconds.
    fn sample(&self, lab: &Lab) -> Result<f64> {
        if self.nftables {
            let script = nftables::script(&self.spec)?;
            let start = Instant::now();
            lab.router().feed("nft", &["-f", "-"], &script)?;
            let elapsed = start.elapsed();
            lab.router().feed("nft", &["-f", "-"], "flush ruleset")?;
            return Ok(elapsed.as_secs_f64() * 1e3);
        }
        let start = Instant::now();
        let router = lab.start_router_with(&self.spec.yaml(), &[])?;
        let elapsed = start.elapsed();
        router.stop()?;
        Ok(elapsed.as_secs_f64() * 1e3)
    }
}
