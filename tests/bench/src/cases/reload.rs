//! The time to replace all rules of a running router.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use egress_tests::{Lab, Protocol, RouterProcess, nftables};
use tempfile::TempDir;

use crate::bench::{Bench, progress};
use crate::contender::{Load, spec};
use crate::report::{RatiosOf, Row, Table};
use crate::stats::Better;

const RULES: u16 = 10_000;
/// Enough rounds for something this slow.
const ROUNDS: usize = 8;

/// A dataplane, and the two sets of rules that it gets in turn.
enum Subject {
    Router {
        process: RouterProcess,
        file: PathBuf,
        _directory: TempDir,
        specs: [String; 2],
    },
    Nftables {
        lab: Lab,
        scripts: [String; 2],
    },
}

/// Measures the router and nftables. Every rule changes.
pub fn measure(bench: &mut Bench) -> Result<Table> {
    progress("building the labs of the changes");
    let specs = [true, false].map(|changes_ports| {
        spec(Load {
            rules: RULES,
            protocol: Protocol::Udp,
            flows: 0,
            changes_ports,
        })
    });
    let lab = Lab::new()?;
    let directory = TempDir::new()?;
    let file = directory.path().join("router.yaml");
    fs::write(&file, specs[0].yaml())?;
    let mut subjects = [
        Subject::Router {
            process: lab.start_router(&file)?,
            file,
            _directory: directory,
            specs: specs.each_ref().map(egress_tests::Spec::yaml),
        },
        Subject::Nftables {
            lab: Lab::new()?,
            scripts: [replacing(&specs[0])?, replacing(&specs[1])?],
        },
    ];
    let (rounds, samples) = bench.interleave_few(
        ROUNDS,
        "reload",
        Better::Lower,
        &mut subjects,
        Subject::sample,
    )?;
    let rows = ["egress-router, SIGHUP", "nft -f"].iter().enumerate();
    Ok(Table {
        case: "reload",
        title: format!("Replacing {RULES} rules of which every one changes"),
        unit: "ms",
        better: Better::Lower,
        rounds,
        ratios_of: RatiosOf::Value,
        rows: rows
            .map(|(index, name)| {
                Row::of((*name).to_owned(), samples.estimate(|value| value(index)))
            })
            .collect(),
        notes: vec![
            "From the signal, or the start of nft, until the new rules are in force, with reading and checking them. \
             Both replace all of them at once."
                .into(),
        ],
        harness_error: None,
    })
}

/// An nftables transaction that replaces all rules atomically.
fn replacing(spec: &egress_tests::Spec) -> Result<String> {
    Ok(format!("flush ruleset\n{}", nftables::script(spec)?))
}

impl Subject {
    /// The time in milliseconds. The other rules come next.
    fn sample(&mut self) -> Result<f64> {
        let elapsed = match self {
            Self::Router {
                process,
                file,
                specs,
                ..
            } => {
                specs.swap(0, 1);
                // Under another name first: the router would refuse a half-written file.
                let next = file.with_extension("next");
                fs::write(&next, &specs[0])?;
                let start = Instant::now();
                process.reload(|| Ok(fs::rename(&next, &*file)?))?;
                start.elapsed()
            }
            Self::Nftables { lab, scripts } => {
                scripts.swap(0, 1);
                let start = Instant::now();
                lab.router().feed("nft", &["-f", "-"], &scripts[0])?;
                start.elapsed()
            }
        };
        Ok(elapsed.as_secs_f64() * 1e3)
    }
}
