//! The HTTP server of a running router: what it serves, to whom, and which misuse it survives.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use egress_tests::addresses::{HTTP, ROUTER_NET1, V4};
use egress_tests::requirements::skipped;
use egress_tests::{
    Connection, Lab, Namespace, eventually, http, router, skip_unless_lab_works, tcp,
};
use egress_userspace::telemetry::metrics::registry;
use serde_json::Value;
use tempfile::TempDir;

use crate::lab::{Running, exchange_datagrams, send_to_net1};
use crate::shell;

const PORT: u16 = 9469;
/// The address at which a scraper in the cluster finds the metrics.
const METRICS: SocketAddr = V4.on_eth0(PORT);
const OPTIONS: [&str; 2] = ["--metrics-address", "0.0.0.0:9469"];

/// The samples of a scrape: the value by everything that precedes it.
fn scrape(lab: &Lab) -> Result<BTreeMap<String, f64>> {
    let text = http::get(lab.client(), METRICS, "metrics")?;
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let (sample, value) = line.rsplit_once(' ').context(line.to_owned())?;
            Ok((sample.to_owned(), value.parse()?))
        })
        .collect()
}

/// Fetches a page with `curl`. Returns the status and the body.
fn page(namespace: &Namespace, page: &str, options: &[&str]) -> Result<(u16, String)> {
    let url = format!("http://{METRICS}/{page}");
    http::status_and_body(namespace, &[options, &[&url]].concat())
}

#[test]
fn metrics_are_what_rules_and_status_say() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &OPTIONS)?;
    exchange_datagrams(&lab)?;
    let connection = Connection::open(&lab, HTTP)?;
    connection.exchange()?;

    // The only flows and packets of rules are those of the traffic above.
    let metrics = scrape(&lab)?;
    let rules = shell::json(lab.router(), &["rules"])?;
    let rules = shell::array(&rules)?;
    ensure!(rules.len() == 3, "{rules:?}");
    for rule in rules {
        let labels = format!(
            "rule=\"{}\",port=\"{}\",protocol=\"{}\",destination=\"{}:{}\"",
            rule["id"],
            rule["port"],
            shell::string(rule, "/protocol")?,
            shell::string(rule, "/destination/address")?,
            rule["destination"]["port"],
        );
        let opened = format!("egress_router_flows_opened_total{{{labels}}}");
        same(&metrics, &opened, &rule["flows"])?;
        for direction in ["original", "reply"] {
            for unit in ["packets", "bytes"] {
                let name =
                    format!("egress_router_{unit}_total{{{labels},direction=\"{direction}\"}}");
                same(&metrics, &name, &rule[direction][unit])?;
            }
        }
    }
    let status = crate::lab::status(&lab)?;
    for (name, expected) in [
        ("egress_router_flows{family=\"ipv4\"}", &status["flows"]),
        (
            "egress_router_max_flows{family=\"ipv4\"}",
            &status["max_flows"],
        ),
        (
            "egress_router_flows_evicted_total",
            &status["flows_evicted"],
        ),
    ] {
        same(&metrics, name, expected)?;
    }
    let used = "egress_router_nat_ports_used{server=\"203.0.113.26\",port=\"80\",protocol=\"TCP\"}";
    same(&metrics, used, &1.into())?;
    same(&metrics, "egress_router_attached", &1.into())?;
    same(
        &metrics,
        "egress_router_interface_mtu_bytes{side=\"egress\",interface=\"net1\"}",
        &1500.into(),
    )
}

fn same(metrics: &BTreeMap<String, f64>, name: &str, expected: &Value) -> Result<()> {
    let found = metrics.get(name);
    ensure!(
        found.copied() == expected.as_f64() && found.is_some(),
        "{name} is {found:?} instead of {expected}: {metrics:#?}"
    );
    Ok(())
}

#[test]
fn every_metric_is_there_in_both_formats() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &OPTIONS)?;
    exchange_datagrams(&lab)?;
    let expected: BTreeSet<_> = registry::ALL.iter().map(|metric| metric.name).collect();
    for (accept, is_openmetrics) in [("*/*", false), ("application/openmetrics-text", true)] {
        let header = format!("Accept: {accept}");
        let (status, text) = page(lab.client(), "metrics", &["--header", &header])?;
        assert_eq!(status, 200);
        assert_eq!(text.ends_with("# EOF\n"), is_openmetrics, "{text}");
        let found: BTreeSet<_> = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split(['{', ' ']).next())
            .collect();
        assert_eq!(found, expected, "{accept}");
    }
    Ok(())
}

#[test]
fn promtool_has_nothing_to_complain_about() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &OPTIONS)?;
    exchange_datagrams(&lab)?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), http::get(lab.client(), METRICS, "metrics")?)?;
    let mut promtool = std::process::Command::new("promtool");
    promtool
        .args(["check", "metrics"])
        .stdin(Stdio::from(file.reopen()?));
    if promtool_is_missing() {
        skipped(
            egress_tests::function_name!(),
            "no promtool in PATH (Debian's package prometheus)",
        );
        return Ok(());
    }
    let finished = shell::finish(&mut promtool)?;
    let said = format!("{}{}", finished.stdout, finished.stderr);
    ensure!(finished.code == Some(0) && said.is_empty(), "{finished:?}");
    Ok(())
}

/// Whether `promtool` is not installed.
pub fn promtool_is_missing() -> bool {
    let mut version = std::process::Command::new("promtool");
    shell::finish(version.arg("--version")).is_err()
}

#[test]
fn the_router_is_ready_while_its_address_and_gateway_are_there() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &OPTIONS)?;
    // No packet has been sent yet, so the router has to resolve the gateway's MAC address.
    assert_eq!(
        page(lab.client(), "readyz", &[])?,
        (200, "ready\n".to_owned())
    );
    assert_eq!(
        page(lab.client(), "healthz", &[])?,
        (200, "ok\n".to_owned())
    );

    let [address, gateway] = [ROUTER_NET1, V4.gateway];
    lab.gateway()
        .ip([format!("address del {gateway} dev lan0")])?;
    lab.router().ip(["neighbour flush dev net1"])?;
    let (status, reasons) = page(lab.client(), "readyz", &[])?;
    assert_eq!(status, 503, "{reasons}");
    assert_eq!(
        reasons,
        format!("the next hop {} on net1 does not answer\n", gateway.address)
    );
    lab.gateway()
        .ip([format!("address add {gateway} dev lan0")])?;
    eventually("the gateway is back", || {
        Ok((page(lab.client(), "readyz", &[])?.0 == 200).then_some(()))
    })?;

    lab.router()
        .ip([format!("address del {address} dev net1")])?;
    let (status, reasons) = page(lab.client(), "readyz", &[])?;
    assert_eq!(status, 503, "{reasons}");
    let expected = format!(
        "net1 does not have the reserved address {}\n",
        address.address
    );
    ensure!(reasons.starts_with(&expected), "{reasons}");
    // The default route was removed together with the address.
    let (_, hops) = reasons
        .split_once('\n')
        .context("there is only one reason")?;
    ensure!(hops.contains("203.0.113.26"), "{reasons}");
    assert_eq!(page(lab.client(), "healthz", &[])?.0, 200);
    Ok(())
}

#[test]
fn outsiders_find_no_listener_on_any_address() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &OPTIONS)?;
    // The address of eth0, too, through net1.
    let eth0 = V4.router_eth0.address;
    lab.neighbour()
        .ip([format!("route add {eth0} via {}", ROUTER_NET1.address)])?;
    let quick = ["-q", "--noproxy", "*", "--silent", "--max-time", "2"];
    for address in [ROUTER_NET1.address, eth0] {
        let url = format!("http://{address}:{PORT}/metrics");
        let arguments: Vec<_> = quick.iter().copied().chain([url.as_str()]).collect();
        let answer = lab.neighbour().output("curl", &arguments);
        ensure!(answer.is_err(), "{address} answered: {answer:?}");
    }
    assert_eq!(page(lab.client(), "healthz", &[])?.0, 200);
    let on_lo = format!("http://127.0.0.1:{PORT}/healthz");
    assert_eq!(http::curl(lab.router(), &[&on_lo])?, "ok\n");
    Ok(())
}

#[test]
fn idle_http_clients_are_disconnected() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &OPTIONS)?;
    // Opens more connections than the server allows at once. Half of them send an incomplete request.
    let mut idle = Vec::new();
    for number in 0..48 {
        let mut client = tcp::connect(lab.client(), METRICS)?;
        if number % 2 == 0 {
            client.write_all(b"GET /metrics HTTP/1.1\r\n")?;
        }
        idle.push(client);
    }
    // Meanwhile the router keeps forwarding, and a client with a complete request is served.
    exchange_datagrams(&lab)?;
    assert_eq!(page(lab.client(), "healthz", &[])?.0, 200);
    for client in &mut idle {
        // The server may send an error response first.
        let mut rest = Vec::new();
        client
            .read_to_end(&mut rest)
            .context("the end of an idle connection")?;
        ensure!(!rest.starts_with(b"HTTP/1.1 200"), "{rest:?}");
    }
    Ok(())
}

#[test]
fn unacceptable_http_requests_are_refused() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &OPTIONS)?;
    let long = format!("X-Long: {}", "x".repeat(64 * 1024));
    for (name, options, expected) in [
        ("metrics", &["--request", "POST"][..], 405),
        ("", &[], 404),
        ("../etc/passwd", &["--path-as-is"], 404),
        ("metrics", &["--header", &long], 431),
    ] {
        assert_eq!(
            page(lab.client(), name, options)?.0,
            expected,
            "{name} {options:?}"
        );
    }
    assert_eq!(page(lab.client(), "healthz", &[])?.0, 200);
    Ok(())
}

#[test]
fn an_address_that_is_taken_is_refused_before_anything_is_attached() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _taken = tcp::listen(lab.router(), V4.on_any(PORT))?;
    let spec = router::example_spec().display().to_string();
    let arguments = [
        "run",
        "--config",
        &spec,
        "--metrics-address",
        "0.0.0.0:9469",
    ];
    shell::egress_router(lab.router(), &arguments)?
        .failure(1, &["cannot listen on 0.0.0.0:9469", "in use"])?;
    assert!(crate::lab::attachments(&lab)?.is_empty());
    Ok(())
}

/// A Prometheus that scrapes the router from the client's pod. It is stopped on drop.
struct Prometheus<'l> {
    lab: &'l Lab,
    process: Child,
    _directory: TempDir,
}

impl<'l> Prometheus<'l> {
    fn start(lab: &'l Lab) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let alerts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/prometheus/alerts.yaml");
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [alerts.canonicalize()?],
            "scrape_configs": [{
                "job_name": "egress-router",
                "static_configs": [{"targets": [METRICS]}],
            }],
        });
        // JSON is valid YAML.
        let file = directory.path().join("prometheus.yml");
        std::fs::write(&file, config.to_string())?;
        let option = |name: &str, path: &Path| format!("--{name}={}", path.display());
        let process = lab
            .client()
            .command("prometheus")
            .arg(option("config.file", &file))
            .arg(option("storage.tsdb.path", directory.path()))
            .arg("--web.listen-address=127.0.0.1:9090")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self {
            lab,
            process,
            _directory: directory,
        })
    }

    /// The response of an API endpoint, or an error.
    fn get(&self, page: &str, options: &[&str]) -> Result<Value> {
        let url = format!("http://127.0.0.1:9090/api/v1/{page}");
        let arguments: Vec<_> = options.iter().copied().chain([url.as_str()]).collect();
        Ok(serde_json::from_str(&http::curl(
            self.lab.client(),
            &arguments,
        )?)?)
    }

    /// The number of series that a query currently returns.
    fn query(&self, expression: &str) -> Result<usize> {
        let query = format!("query={expression}");
        let answer = self.get("query", &["--get", "--data-urlencode", &query])?;
        Ok(shell::array(&answer["data"]["result"])?.len())
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Every query of the dashboard, as Grafana sends it.
fn dashboard_queries() -> Result<Vec<String>> {
    let dashboard = include_str!("../../deploy/grafana/egress-router.json");
    let dashboard: Value = serde_json::from_str(dashboard)?;
    let mut queries = Vec::new();
    for panel in shell::array(&dashboard["panels"])? {
        for target in shell::array(&panel["targets"])? {
            let query = shell::string(target, "/expr")?;
            let query = query.replace("$__rate_interval", "30s");
            queries.push(query.replace("$job", ".*").replace("$instance", ".*"));
        }
    }
    ensure!(
        queries.iter().all(|query| !query.contains('$')),
        "{queries:#?}"
    );
    Ok(queries)
}

#[test]
fn a_prometheus_has_data_for_each_panel_and_evaluates_each_alert() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let router = Running::start(&lab, &OPTIONS)?;
    exchange_datagrams(&lab)?;
    let prometheus = match Prometheus::start(&lab) {
        Ok(prometheus) => prometheus,
        Err(error) => {
            let reason =
                format!("no prometheus in PATH (Debian's package of that name): {error:#}");
            skipped(egress_tests::function_name!(), &reason);
            return Ok(());
        }
    };
    eventually("Prometheus has scraped the router", || {
        Ok(prometheus
            .query("up == 1")
            .is_ok_and(|series| series == 1)
            .then_some(()))
    })?;
    for query in dashboard_queries()? {
        eventually(&query, || {
            // Each kind of traffic continues, so that no rate is 0: forwarded, dropped, and for the pod's own stack.
            exchange_datagrams(&lab)?;
            send_to_net1(&lab, [192, 168, 12, 77].into())?;
            send_to_net1(&lab, ROUTER_NET1.address)?;
            std::thread::sleep(Duration::from_millis(200));
            Ok((prometheus.query(&query)? > 0).then_some(()))
        })?;
    }
    let rules = eventually("each alert has been evaluated", || {
        let answer = prometheus.get("rules", &[])?;
        let rules = shell::array(&answer["data"]["groups"][0]["rules"])?.to_vec();
        let is_done = rules.iter().all(|rule| rule["health"] != "unknown");
        Ok((is_done && !rules.is_empty()).then_some(rules))
    })?;
    for rule in &rules {
        assert_eq!(rule["health"], "ok", "{rule:#}");
        assert_eq!(rule["state"], "inactive", "{rule:#}");
    }
    drop(router);
    Ok(())
}
