//! Measurements by well-known tools: iperf3, and wrk against an HTTP server. Each sample takes a second.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use egress_tests::http::HttpServer;
use egress_tests::{PATIENCE, Protocol};

use crate::bench::{Bench, pinned, progress};
use crate::contender::{Contender, Load, Testbed, is_installed, service};
use crate::report::{RatiosOf, Row, Table, compare};
use crate::stats::Better;

/// Enough rounds for something this slow.
const ROUNDS: usize = 10;
/// The time limit of a tool, so that a hanging one does not block the others.
const LIMIT_S: &str = "20";

/// A tool with the service that it measures.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// One TCP stream.
    Iperf3,
    /// HTTP requests over eight connections that stay open.
    Wrk,
}

/// A contender with a server behind it.
struct Track {
    testbed: Testbed,
    _server: Server,
}

enum Server {
    Iperf3(#[expect(dead_code, reason = "runs until it is dropped")] Process),
    Http(#[expect(dead_code, reason = "runs until it is dropped")] HttpServer),
}

/// A process that is killed on drop.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Tool {
    const fn name(self) -> &'static str {
        match self {
            Self::Iperf3 => "iperf3",
            Self::Wrk => "wrk",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Iperf3 => "iperf3, one TCP stream",
            Self::Wrk => "wrk, HTTP requests over eight connections",
        }
    }

    const fn unit(self) -> &'static str {
        match self {
            Self::Iperf3 => "Gbit/s",
            Self::Wrk => "requests/s",
        }
    }
}

/// Measures with `tool`.
pub fn measure(bench: &mut Bench, tool: Tool) -> Result<Table> {
    let mut table = Table {
        case: tool.name(),
        title: tool.title().into(),
        unit: tool.unit(),
        better: Better::Higher,
        rounds: bench.plan.rounds.min(ROUNDS),
        ratios_of: RatiosOf::Value,
        rows: Vec::new(),
        notes: Vec::new(),
        harness_error: None,
    };
    if !is_installed(tool.name()) {
        let reason = format!("{} is not installed", tool.name());
        table.rows = vec![Row::skipped(Contender::EgressRouter.name(), Some(reason))];
        return Ok(table);
    }
    let load = Load {
        rules: 2,
        protocol: Protocol::Tcp,
        flows: 0,
        changes_ports: true,
    };
    let built = bench.testbeds(&Contender::CONNECTING, load)?;
    let contenders = built.contenders();
    let (cpu, other_cpu) = (bench.cpu, bench.other_cpu);
    let mut tracks = Vec::new();
    for testbed in built.testbeds {
        progress(&format!(
            "starting the server behind {}",
            testbed.contender.name()
        ));
        let server = pinned(other_cpu, || serve(&testbed, tool))?;
        tracks.push(Track {
            testbed,
            _server: server,
        });
    }
    let (_, samples) =
        bench.interleave_few(ROUNDS, tool.name(), Better::Higher, &mut tracks, |track| {
            pinned(cpu, || sample(&track.testbed, tool))
        })?;
    table.rows = compare(&contenders, &samples, RatiosOf::Value);
    table.rows.extend(built.skipped);
    Ok(table)
}

/// Starts the server on the calling thread's CPU.
fn serve(testbed: &Testbed, tool: Tool) -> Result<Server> {
    let address = service(Protocol::Tcp, 0).server();
    let servers = testbed.lab.servers();
    if tool == Tool::Wrk {
        return Ok(Server::Http(HttpServer::start(servers, address)?));
    }
    let child = servers
        .command("iperf3")
        .args(["--server", "--bind", &address.ip().to_string()])
        .args(["--port", &address.port().to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting iperf3's server")?;
    let server = Server::Iperf3(Process(child));
    // iperf3 does not report when it is ready.
    let deadline = Instant::now() + PATIENCE;
    while sample(testbed, tool).is_err() {
        ensure!(Instant::now() < deadline, "iperf3's server does not answer");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(server)
}

/// Runs the client once.
fn sample(testbed: &Testbed, tool: Tool) -> Result<f64> {
    let to = testbed.reach(Protocol::Tcp, 0);
    let mut command = testbed.lab.client().command("timeout");
    command.args([LIMIT_S, tool.name()]);
    match tool {
        Tool::Iperf3 => {
            command
                .args(["--client", &to.ip().to_string()])
                .args(["--port", &to.port().to_string()])
                .args(["--time", "1", "--json"]);
            let report: serde_json::Value = serde_json::from_str(&output(command)?)?;
            let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
            Ok(rate.context("iperf3 reports no rate")? / 1e9)
        }
        Tool::Wrk => {
            command
                .args(["--threads", "1", "--connections", "8", "--duration", "1s"])
                .arg(format!("http://{to}/bytes/128"));
            let report = output(command)?;
            let rate = report
                .lines()
                .find_map(|line| line.strip_prefix("Requests/sec:"))
                .with_context(|| format!("wrk reports no rate: {report}"))?;
            ensure!(
                !report.contains("Non-2xx") && !report.contains("Socket errors"),
                "{report}"
            );
            Ok(rate.trim().parse()?)
        }
    }
}

fn output(mut command: Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8(output.stdout)?;
    if !output.status.success() {
        bail!(
            "{} failed ({}): {text}{}",
            command.get_program().display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(text)
}
