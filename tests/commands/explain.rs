//! `explain`: that it says beforehand what happens then.

use anyhow::{Context as _, Result, ensure};
use egress_tests::addresses::{HTTP, ROUTER_NET1, client};
use egress_tests::{Lab, Rule, skip_unless_lab_works};
use serde_json::Value;

use crate::lab::{Connection, Running, UNDEFINED_PORT};
use crate::shell::{self, Finished, array, string};

const NOT_FORWARDED: i32 = 9;

fn explain(lab: &Lab, port: u16, options: &[&str]) -> Result<Finished> {
    let (client, port) = (client(0).address.to_string(), port.to_string());
    let arguments = [&["explain", &client, &port, "tcp"], options].concat();
    shell::egress_router(lab.router(), &arguments)
}

fn step<'e>(explanation: &'e Value, name: &str) -> Result<&'e str> {
    let steps = array(&explanation["steps"])?;
    let step = steps.iter().find(|step| step["name"] == name);
    string(
        step.with_context(|| format!("no step {name} in {explanation:#}"))?,
        "/detail",
    )
}

#[test]
fn a_connection_by_a_rule_is_forwarded_and_each_step_tells_how() -> Result<()> {
    const RULE: Rule = HTTP;
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    let explained = || -> Result<Value> {
        let text = explain(&lab, RULE.port, &["--output", "json"])?.success()?;
        Ok(serde_json::from_str(&text)?)
    };
    let before = explained()?;
    assert_eq!(before["forwarded"], true);
    ensure!(
        step(&before, "rule")?.ends_with(&RULE.server().to_string()),
        "{before:#}"
    );
    assert_eq!(step(&before, "source")?, ROUTER_NET1.address.to_string());
    ensure!(step(&before, "flows")?.starts_with("0 "), "{before:#}");

    let _connection = Connection::open(&lab, RULE)?;
    let after = explained()?;
    ensure!(step(&after, "flows")?.starts_with("1 "), "{after:#}");
    for way in ["way out", "way back"] {
        ensure!(step(&after, way)?.starts_with("by "), "{after:#}");
    }
    let text = explain(&lab, RULE.port, &[])?.success()?;
    ensure!(text.ends_with("\nforwarded\n"), "{text}");
    Ok(())
}

#[test]
fn a_connection_without_a_rule_is_not_forwarded() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    let finished = explain(&lab, UNDEFINED_PORT, &[])?;
    assert_eq!(finished.code, Some(NOT_FORWARDED), "{finished:?}");
    ensure!(
        finished.stdout.contains("the pod's own stack"),
        "{finished:?}"
    );
    ensure!(
        finished.stdout.ends_with("\nnot forwarded\n"),
        "{finished:?}"
    );
    Ok(())
}
