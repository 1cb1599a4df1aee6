//! `egress-router check`: validates specs and summarizes what they do.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::process::ExitCode;

use egress_api::{EgressRouter, Family, LoadError, RuleTable};
use serde_json::json;

use super::{
    exit,
    output::{self, Output},
    terminal,
};

/// Check specs and report every error, or what the router will do
///
/// A spec is an `EgressRouter` resource in YAML or JSON. Checking needs no privileges and no cluster, and changes
/// nothing. Each error names its field, what was found and what was expected.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit codes:
  0  every spec is valid
  1  a file could not be read
  3  a spec has errors

Examples:
  egress-router check router.yaml
  kubectl get egressrouter my-router -o yaml | egress-router check -
  egress-router check --output json *.yaml | jq '.[].errors[]'")]
pub struct Args {
    /// The specs to check, one router in each; `-` is standard input
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,

    /// How to print the result
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Checks each file and prints the results.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let results: Vec<_> = args
        .files
        .iter()
        .map(|file| (file.as_str(), egress_api::load(file)))
        .collect();
    match args.output {
        Output::Text => {
            for (file, result) in &results {
                output::text(&terminal::wrap(&text(file, result), terminal::columns(), 4))?;
            }
        }
        Output::Json => {
            let reports: Vec<_> = results
                .iter()
                .map(|(file, result)| report(file, result))
                .collect();
            output::json(&reports)?;
        }
    }
    Ok(exit_code(results.iter().map(|(_, result)| result)))
}

/// The exit code of the worst result. An unreadable file is worse than a spec with errors.
fn exit_code<'r>(results: impl Iterator<Item = &'r Result<EgressRouter, LoadError>>) -> ExitCode {
    results
        .filter_map(|result| result.as_ref().err())
        .max_by_key(|error| matches!(error, LoadError::Unreadable { .. }))
        .map_or(ExitCode::SUCCESS, |error| exit::load_error(error).into())
}

fn text(file: &str, result: &Result<EgressRouter, LoadError>) -> String {
    match result {
        Ok(router) => format!("{file}: valid\n{}", Summary(router)),
        Err(error) => error.to_string(),
    }
}

fn report(file: &str, result: &Result<EgressRouter, LoadError>) -> serde_json::Value {
    match result {
        Ok(router) => json!({ "file": file, "valid": true, "errors": [], "router": router }),
        Err(LoadError::Invalid(invalid)) => {
            let errors: Vec<_> = invalid
                .errors
                .iter()
                .map(|error| {
                    json!({
                        "path": error.path,
                        "found": error.found,
                        "expected": error.expected,
                        "help": error.help,
                        "message": error.to_string(),
                    })
                })
                .collect();
            json!({ "file": file, "valid": false, "errors": errors })
        }
        Err(error @ LoadError::Unreadable { .. }) => {
            json!({ "file": file, "valid": false, "errors": [], "unreadable": error.to_string() })
        }
    }
}

/// What a router does: a line for each address and each rule.
struct Summary<'r>(&'r EgressRouter);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let router = self.0;
        f.write_str("  EgressRouter ")?;
        if let Some(namespace) = &router.metadata.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&router.metadata.name)?;
        for own in &router.spec.addresses {
            write!(f, "\n  address {}", own.ip)?;
            match own.gateway {
                Some(gateway) => write!(f, " via {gateway}")?,
                None => f.write_str(" without a gateway")?,
            }
        }
        let table = RuleTable::from(router);
        for rule in &table.rules {
            let server = SocketAddr::new(rule.destination, rule.target_port.get());
            write!(f, "\n  {}/{} → {server}", rule.port, rule.protocol)?;
            write_source(f, &table, rule.destination)?;
        }
        for fallback in table.fallbacks() {
            let family = Family::of(fallback);
            write!(
                f,
                "\n  every other port over {family} → {fallback}, same port"
            )?;
            write_source(f, &table, fallback)?;
        }
        if table.fallbacks().next().is_none() {
            f.write_str("\n  every other port: not redirected")?;
        }
        Ok(())
    }
}

fn write_source(f: &mut fmt::Formatter<'_>, table: &RuleTable, server: IpAddr) -> fmt::Result {
    match table.reserved(Family::of(server)) {
        Some(source) => write!(f, " from {source}"),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../docs/examples/egress-router.yaml");

    fn checked(text: &str) -> Result<EgressRouter, LoadError> {
        egress_api::parse(text, "router.yaml").map_err(LoadError::Invalid)
    }

    #[test]
    fn the_summary_has_a_line_for_each_rule() {
        let summary = text("router.yaml", &checked(EXAMPLE));
        let expected = "\
router.yaml: valid
  EgressRouter example/egress-router-redirect
  address 192.168.12.99/24 via 192.168.12.1
  80/UDP → 10.0.0.99:80 from 192.168.12.99
  8080/TCP → 203.0.113.26:80 from 192.168.12.99
  8443/TCP → 203.0.113.27:443 from 192.168.12.99
  every other port: not redirected";
        assert_eq!(summary, expected);
    }

    #[test]
    fn the_errors_are_counted_and_listed() {
        let broken = EXAMPLE.replace("8080", "70000").replace("Bridge", "bridge");
        let expected = "\
router.yaml: 2 errors
  spec.networkInterface.macvlan.mode: \"bridge\" is not a macvlan mode (Bridge, Private, VEPA or Passthru): the case \
            matters, write Bridge
  spec.redirect.redirectRules[1].port: 70000 is not a port (1–65535)";
        assert_eq!(text("router.yaml", &checked(&broken)), expected);
    }

    #[test]
    fn the_json_report_has_each_error_in_parts() {
        let broken = EXAMPLE.replace("8080", "70000");
        let expected = json!({
            "file": "router.yaml",
            "valid": false,
            "errors": [{
                "path": "spec.redirect.redirectRules[1].port",
                "found": "70000",
                "expected": "a port (1–65535)",
                "help": null,
                "message": "spec.redirect.redirectRules[1].port: 70000 is not a port (1–65535)",
            }],
        });
        assert_eq!(report("router.yaml", &checked(&broken)), expected);
    }

    #[test]
    fn the_exit_code_is_that_of_the_worst_result() {
        let unreadable = egress_api::load("/does/not/exist");
        let all = [checked(EXAMPLE), checked("kind: Pod"), unreadable];
        assert_eq!(exit_code(all[..1].iter()), ExitCode::SUCCESS);
        assert_eq!(exit_code(all[..2].iter()), ExitCode::from(3));
        assert_eq!(exit_code(all.iter()), ExitCode::from(1));
    }
}
