//! `rules`: order, limit and totals.

use anyhow::{Context as _, Result, ensure};
use egress_tests::addresses::{DATAGRAM, HTTP, RULES, TLS};
use egress_tests::{Connection, Lab, skip_unless_lab_works};
use serde_json::Value;

use crate::lab::{Running, exchange_datagrams};
use crate::shell::{self, array, number};

const USAGE: i32 = 2;

fn ids(lab: &Lab, options: &[&str]) -> Result<Vec<u64>> {
    let rules = shell::json(lab.router(), &[&["rules"], options].concat())?;
    array(&rules)?
        .iter()
        .map(|rule| number(rule, "/id"))
        .collect()
}

#[test]
fn rules_are_sorted_and_limited_as_asked() -> Result<()> {
    skip_unless_lab_works!();
    ensure!(
        RULES == [DATAGRAM, HTTP, TLS],
        "the ids are those of the example"
    );
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    exchange_datagrams(&lab)?;
    for _ in 0..2 {
        Connection::open(&lab, TLS)?.exchange()?;
    }
    let cases: [(&[&str], &[u64]); 7] = [
        (&[], &[0, 1, 2]),
        (&["--sort", "rule"], &[0, 1, 2]),
        (&["--sort", "port"], &[0, 1, 2]),
        (&["--sort", "flows"], &[2, 0, 1]),
        (&["--sort", "packets"], &[2, 0, 1]),
        (&["--sort", "bytes", "--limit", "2"], &[2, 0]),
        (&["--limit", "10"], &[0, 1, 2]),
    ];
    for (options, expected) in cases {
        assert_eq!(ids(&lab, options)?, expected, "{options:?}");
    }
    shell::egress_router(lab.router(), &["rules", "--sort", "name"])?
        .failure(USAGE, &["bytes", "port"])
}

#[test]
fn the_last_line_has_the_sums_of_all_rules() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    exchange_datagrams(&lab)?;
    Connection::open(&lab, TLS)?.exchange()?;
    let options = ["rules", "--sort", "bytes", "--limit", "1"];
    let text = shell::egress_router(lab.router(), &options)?.success()?;
    assert_eq!(text.lines().count(), 3, "{text}");
    let last = text.lines().last().context("there is no output")?;
    let words: Vec<_> = last.split_whitespace().collect();
    assert_eq!(words[..3], ["all", "3", "2"], "{text}");

    let rules = shell::json(lab.router(), &["rules"])?;
    let packets = |rule: &Value| number(rule, "/original/packets");
    let sum: u64 = array(&rules)?.iter().map(packets).sum::<Result<u64>>()?;
    assert_eq!(words[3], sum.to_string(), "{text}");
    Ok(())
}
