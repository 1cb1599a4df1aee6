//! Changes to the spec of a running router.

use anyhow::{Context as _, Result, ensure};
use egress_tests::addresses::V4;
use egress_tests::{Lab, Spec, skip_unless_lab_works, tcp};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::pod::Pod;

fn rule_on(rules: &Value, port: u16) -> Result<&Value> {
    let rules = rules.as_array().context("rules is not an array")?;
    rules
        .iter()
        .find(|rule| rule["port"] == port)
        .with_context(|| format!("no rule on {port}: {rules:?}"))
}

#[test]
fn a_changed_spec_is_in_force_by_itself_and_rules_that_stay_go_on_counting() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let pod = Pod::start_in(&lab, &[])?;
    let http = V4.http();
    let listener = tcp::listen(lab.servers(), http.server())?;
    tcp::connect(lab.client(), http.service())?;
    tcp::accept(&listener)?;
    let before = pod.ask("rules")?;

    let mut spec = Spec::dual_stack();
    spec.rules.reverse();
    let mut another = http;
    another.port = 7000;
    spec.rules.insert(0, another);
    pod.write_spec(&spec.yaml())?;
    let status = pod.wait_for("the router has seen the change", |status| {
        status["reloads"]["applied"] == 1
    })?;
    assert_eq!(status["rules"], spec.rules.len());
    let after = pod.ask("rules")?;
    let (old, new) = (rule_on(&before, http.port)?, rule_on(&after, http.port)?);
    assert_eq!(old["id"], new["id"]);
    assert_eq!(new["flows"], 1);
    assert_eq!(rule_on(&after, 7000)?["flows"], 0);
    tcp::connect(lab.client(), another.service())?;
    tcp::accept(&listener)?;
    assert_eq!(rule_on(&pod.ask("rules")?, 7000)?["flows"], 1);
    Ok(())
}

#[test]
fn a_spec_with_errors_is_refused_and_status_says_why_until_it_is_mended() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let pod = Pod::start_in(&lab, &[])?;
    let good = Spec::dual_stack().yaml();
    let rules = pod.ask("rules")?;
    pod.write_spec(&good.replace("port: ", "port: 9"))?;
    let status = pod.wait_for("the router has refused the change", |status| {
        status["reloads"]["refused"] == 1
    })?;
    let error = status["reloads"]["error"].as_str().context("no error")?;
    ensure!(error.contains("redirectRules"), "{error}");
    pod.wait_for_log("the rules stay as they are")?;
    assert_eq!(pod.ask("rules")?, rules);
    let _listener = tcp::listen(lab.servers(), V4.http().server())?;
    tcp::connect(lab.client(), V4.http().service())?;

    pod.write_spec(&good)?;
    let status = pod.wait_for("the corrected spec is in force", |status| {
        status["reloads"]["error"].is_null()
    })?;
    assert_eq!(status["reloads"]["refused"], 1);
    Ok(())
}

#[test]
fn flows_of_a_removed_rule_continue_or_are_closed_as_asked() -> Result<()> {
    skip_unless_lab_works!();
    for what in ["keep", "close"] {
        let lab = Lab::new()?;
        let pod = Pod::start_in(&lab, &["--on-rule-change", what])?;
        let connect = |rule: egress_tests::Rule| {
            let listener = tcp::listen(lab.servers(), rule.server())?;
            let client = tcp::connect(lab.client(), rule.service())?;
            anyhow::Ok((client, tcp::accept(&listener)?.0))
        };
        let (gone, stays) = (connect(V4.http())?, connect(V4.tls())?);
        let mut spec = Spec::dual_stack();
        spec.rules.retain(|rule| *rule != V4.http());
        pod.reload(&spec.yaml())?;
        tcp::send(&stays.0, &stays.1, b"question")?;
        if what == "keep" {
            tcp::send(&gone.0, &gone.1, b"question")?;
            tcp::send(&gone.1, &gone.0, b"answer")?;
        } else {
            pod.wait_for_log("ended 1 flows")?;
            for end in [&gone.0, &gone.1] {
                use std::io::Write as _;
                let mut end = end;
                end.write_all(b"are you there?")?;
                tcp::expect_reset(end)?;
            }
        }
    }
    Ok(())
}

#[test]
fn a_spec_from_standard_input_cannot_be_read_again() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let router = lab.start_router_by(&Spec::dual_stack())?;
    router.signal(Signal::SIGHUP)?;
    egress_tests::eventually("status says why", || {
        let log = router.log();
        let says_why = log.contains("standard input, which cannot be read again");
        Ok(says_why.then_some(()))
    })
}
