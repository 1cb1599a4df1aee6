//! The files under `deploy/` agree with the router's metrics, spec and options.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use egress_api::{EgressRouter, RuleTable};
use egress_common::Outcome;
use egress_tests::requirements::skipped;
use egress_tests::{function_name, router};
use egress_userspace::telemetry::metrics::registry;
use serde_json::Value;

/// The manifests, one for each way to run a router in Kubernetes.
const MANIFESTS: [&str; 4] = [
    "configmap.yaml",
    "network.yaml",
    "deployment.yaml",
    "service.yaml",
];

fn deploy(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../deploy")
        .join(path)
}

fn text(path: &str) -> Result<String> {
    fs::read_to_string(deploy(path)).with_context(|| format!("reading deploy/{path}"))
}

fn yaml(path: &str) -> Result<Value> {
    yaml_serde::from_str(&text(path)?).with_context(|| format!("deploy/{path}"))
}

/// Runs a program. Reports a skip and returns `None` if it is not installed.
fn installed(test: &str, program: &str, arguments: &[&str]) -> Result<Option<Output>> {
    match Command::new(program).args(arguments).output() {
        Ok(output) => Ok(Some(output)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skipped(test, &format!("no {program} in PATH"));
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("starting {program}")),
    }
}

fn succeeded(output: &Output) -> Result<()> {
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|it| String::from_utf8_lossy(it));
    ensure!(
        output.status.success(),
        "{}\n{stdout}\n{stderr}",
        output.status
    );
    Ok(())
}

/// Every word with the prefix of the router's metrics.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .filter(|word| word.starts_with("egress_router_"))
        .collect()
}

#[test]
fn the_dashboard_and_the_alerts_know_only_metrics_that_exist() -> Result<()> {
    let names: BTreeSet<_> = registry::ALL.iter().map(|metric| metric.name).collect();
    for file in [
        "grafana/egress-router.json",
        "prometheus/alerts.yaml",
        "prometheus/alerts.test.yaml",
        "../docs/metrics.md",
        "../docs/operations.md",
    ] {
        let text = text(file)?;
        let used = metrics_in(&text);
        let unknown: Vec<_> = used.difference(&names).collect();
        ensure!(
            !used.is_empty() && unknown.is_empty(),
            "deploy/{file}: {unknown:?}"
        );
    }
    Ok(())
}

#[test]
fn the_dashboard_shows_every_metric() -> Result<()> {
    let text = text("grafana/egress-router.json")?;
    let shown = metrics_in(&text);
    for metric in registry::ALL {
        let name = metric.name;
        ensure!(shown.contains(name), "the dashboard lacks {name}");
    }
    Ok(())
}

#[test]
fn the_alerts_know_only_outcomes_that_exist() -> Result<()> {
    let text = text("prometheus/alerts.yaml")?;
    let known: BTreeSet<_> = Outcome::ALL.iter().map(|outcome| outcome.name()).collect();
    let mut found = 0;
    for values in text.split("outcome=").skip(1) {
        let values = values.trim_start_matches('~').split('"').nth(1);
        for outcome in values.context("an outcome in quotes")?.split('|') {
            ensure!(known.contains(outcome), "there is no outcome {outcome}");
            found += 1;
        }
    }
    ensure!(found > 0, "no alert is about an outcome");
    Ok(())
}

#[test]
fn the_alerts_pass_their_own_tests() -> Result<()> {
    let [alerts, tests] = ["prometheus/alerts.yaml", "prometheus/alerts.test.yaml"].map(|path| {
        let path = deploy(path);
        path.display().to_string()
    });
    for arguments in [["check", "rules", &alerts], ["test", "rules", &tests]] {
        match installed(function_name!(), "promtool", &arguments)? {
            Some(output) => succeeded(&output)?,
            None => return Ok(()),
        }
    }
    Ok(())
}

/// The spec in the `ConfigMap`.
fn mounted_spec() -> Result<EgressRouter> {
    let config = yaml("manifests/configmap.yaml")?;
    let text = config["data"]["router.yaml"]
        .as_str()
        .context("no router.yaml")?;
    Ok(egress_api::parse(text, "router.yaml")?)
}

#[test]
fn the_manifests_belong_together() -> Result<()> {
    let spec = mounted_spec()?;
    for name in MANIFESTS {
        let manifest = yaml(&format!("manifests/{name}"))?;
        assert_eq!(manifest["metadata"]["name"], "egress-router", "{name}");
        // The manifest must fit any namespace.
        assert!(manifest["metadata"]["namespace"].is_null(), "{name}");
    }
    let kustomization = yaml("manifests/kustomization.yaml")?;
    assert_eq!(kustomization["resources"], serde_json::json!(MANIFESTS));

    let service = yaml("manifests/service.yaml")?;
    let ports: BTreeSet<_> = service["spec"]["ports"]
        .as_array()
        .context("no ports")?
        .iter()
        .map(|port| {
            (
                port["targetPort"].as_u64(),
                port["protocol"].as_str().map(str::to_owned),
            )
        })
        .collect();
    let rules: BTreeSet<_> = RuleTable::from(&spec)
        .rules
        .iter()
        .map(|rule| {
            (
                Some(u64::from(rule.port.get())),
                Some(rule.protocol.to_string()),
            )
        })
        .collect();
    assert_eq!(ports, rules);

    let network = yaml("manifests/network.yaml")?;
    let config = network["spec"]["config"].as_str().context("no config")?;
    let config: Value = serde_json::from_str(config)?;
    let own = &spec.spec.addresses[0];
    let address = &config["ipam"]["addresses"][0];
    assert_eq!(address["address"], own.ip.to_string());
    assert_eq!(
        address["gateway"].as_str().map(str::to_owned),
        own.gateway.map(|it| it.to_string())
    );

    let deployment = yaml("manifests/deployment.yaml")?;
    let (labels, selector) = (
        &deployment["spec"]["template"]["metadata"]["labels"],
        &deployment["spec"]["selector"]["matchLabels"],
    );
    assert_eq!(labels, selector);
    assert_eq!(&service["spec"]["selector"], selector);
    Ok(())
}

#[test]
fn the_deployment_grants_three_capabilities_and_nothing_else() -> Result<()> {
    let deployment = yaml("manifests/deployment.yaml")?;
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    assert_eq!(pod["securityContext"]["runAsUser"], 65532);
    for shared in ["hostNetwork", "hostPID", "hostIPC"] {
        assert!(pod[shared].is_null(), "{shared}");
    }
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["privileged"], false);
    assert_eq!(context["readOnlyRootFilesystem"], true);
    let expected = serde_json::json!({"drop": ["ALL"], "add": ["BPF", "PERFMON", "NET_ADMIN"]});
    assert_eq!(context["capabilities"], expected);
    Ok(())
}

#[test]
fn the_options_in_the_manifests_are_those_of_the_program() -> Result<()> {
    let output = Command::new(router::binary()?)
        .args(["run", "--help"])
        .output()?;
    let help = String::from_utf8(output.stdout)?;
    for file in [
        "manifests/deployment.yaml",
        "systemd/egress-router.service",
        "Containerfile",
    ] {
        let text = text(file)?;
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        let words =
            lines.flat_map(|line| line.split(|c: char| !c.is_ascii_lowercase() && c != '-'));
        for option in words.filter(|word| word.starts_with("--")) {
            ensure!(help.contains(&format!("{option} ")), "{file}: {option}");
        }
    }
    Ok(())
}

#[test]
fn kubectl_builds_the_manifests() -> Result<()> {
    let directory = deploy("manifests").display().to_string();
    match installed(function_name!(), "kubectl", &["kustomize", &directory])? {
        Some(output) => succeeded(&output),
        None => Ok(()),
    }
}

#[test]
fn systemd_finds_no_fault_with_the_unit() -> Result<()> {
    // systemd-analyze also looks for the program and the manual page.
    let binary = router::binary()?.display().to_string();
    let unit = text("systemd/egress-router.service")?;
    let unit: String = unit
        .lines()
        .filter(|line| !line.starts_with("Documentation="))
        .map(|line| line.replace("/usr/local/bin/egress-router", &binary) + "\n")
        .collect();
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("egress-router.service");
    fs::write(&file, unit)?;
    let arguments = ["verify", "--man=no", &file.display().to_string()];
    let Some(output) = installed(function_name!(), "systemd-analyze", &arguments)? else {
        return Ok(());
    };
    succeeded(&output)?;
    let said = String::from_utf8_lossy(&output.stderr);
    // systemd-analyze may also complain about other units of the machine.
    let ours: Vec<_> = said
        .lines()
        .filter(|line| line.contains("egress-router"))
        .collect();
    ensure!(ours.is_empty(), "{ours:#?}");
    Ok(())
}
