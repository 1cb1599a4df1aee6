//! What well-known tools measure: iperf3, and wrk against an HTTP server. A sample of theirs takes a second.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use egress_tests::http::HttpServer;
use egress_tests::{PATIENCE, Protocol};

use crate::bench::{Bench, Plan, pinned, progress};
use crate::contender::{Contender, Load, Stand, is_installed, service};
use crate::report::{RatiosOf, Row, Table, compare};
use crate::stats::Better;

/// Enough for something that takes this long.
const ROUNDS: usize = 10;
/// A tool that hangs does not hold up the others.
const LIMIT_S: &str = "20";

/// A tool, and what answers it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// One TCP stream.
    Iperf3,
    /// HTTP requests over eight connections that stay open.
    Wrk,
}

/// A contender with a server behind it.
struct Track {
    stand: Stand,
    _server: Server,
}

enum Server {
    Iperf3(#[expect(dead_code, reason = "runs while it is there")] Process),
    Http(#[expect(dead_code, reason = "runs while it is there")] HttpServer),
}

/// A process that is killed when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
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

/// Measures what `tool` does.
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
    let field = bench.field(&Contender::CONNECTING, load)?;
    let contenders = field.contenders();
    let (cpu, other_cpu) = (bench.cpu, bench.other_cpu);
    let mut tracks = Vec::new();
    for stand in field.stands {
        progress(&format!(
            "starting the server behind {}",
            stand.contender.name()
        ));
        let server = pinned(other_cpu, || serve(&stand, tool))?;
        tracks.push(Track {
            stand,
            _server: server,
        });
    }
    let plan = bench.plan;
    bench.plan = Plan {
        rounds: table.rounds,
        ..plan
    };
    let samples = bench.interleave(tool.name(), Better::Higher, &mut tracks, |track| {
        pinned(cpu, || sample(&track.stand, tool)).map(|value| [value])
    });
    bench.plan = plan;
    let [samples] = samples?;
    table.rows = compare(&contenders, &samples, RatiosOf::Value);
    table.rows.extend(field.skipped);
    Ok(table)
}

/// The server, on the CPU of the calling thread.
fn serve(stand: &Stand, tool: Tool) -> Result<Server> {
    let address = service(Protocol::Tcp, 0).server();
    let servers = stand.lab.servers();
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
    // It says nothing when it is ready.
    let deadline = Instant::now() + PATIENCE;
    while sample(stand, tool).is_err() {
        ensure!(Instant::now() < deadline, "iperf3's server does not answer");
        thread::sleep(Duration::from_millis(100));
    }
    Ok(server)
}

/// One run of the client.
fn sample(stand: &Stand, tool: Tool) -> Result<f64> {
    let to = stand.reach(Protocol::Tcp, 0);
    let mut command = stand.lab.client().command("timeout");
    command.args([LIMIT_S, tool.name()]);
    match tool {
        Tool::Iperf3 => {
            command
                .args(["--client", &to.ip().to_string()])
                .args(["--port", &to.port().to_string()])
                .args(["--time", "1", "--json"]);
            let report: serde_json::Value = serde_json::from_str(&output(command)?)?;
            let rate = report["end"]["sum_received"]["bits_per_second"].as_f64();
            Ok(rate.context("iperf3 tells no rate")? / 1e9)
        }
        Tool::Wrk => {
            command
                .args(["--threads", "1", "--connections", "8", "--duration", "1s"])
                .arg(format!("http://{to}/bytes/128"));
            let report = output(command)?;
            let rate = report
                .lines()
                .find_map(|line| line.strip_prefix("Requests/sec:"))
                .with_context(|| format!("wrk tells no rate: {report}"))?;
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
