//! `demo`: shows real traffic through the router.

mod page;

use std::net::SocketAddr;
use std::process::{Output, Stdio};
use std::thread;

use anyhow::{Context as _, Result, bail, ensure};
use egress_tests::addresses::{DATAGRAM, HTTP, ROUTER_ETH0, ROUTER_NET1, TLS};
use egress_tests::http::HttpServer;
use egress_tests::router::{self, example_spec};
use egress_tests::{Lab, Namespace, RouterProcess, requirements, tcp, udp};

use self::page::Page;
use crate::build::{self, Profile};
use crate::process::sh;
use crate::root::ensure_root;
use crate::setup;
use crate::workspace::Workspace;

/// The spec, relative to the workspace's root.
const SPEC: &str = "docs/examples/egress-router.yaml";
/// A port that no rule names.
const UNDEFINED_PORT: u16 = 9090;
/// curl's exit code when it cannot connect.
const CURL_CANNOT_CONNECT: i32 = 7;

/// Builds everything and shows the router at work.
pub fn run(workspace: &Workspace) -> Result<()> {
    ensure_root("the demo", "demo")?;
    setup::ensure_complete(workspace)?;
    build::all(workspace, Profile::Debug)?;
    if let Some(reason) = requirements::missing() {
        bail!("the demo's network cannot be created here: {reason}");
    }
    let page = Page::of_standard_output();
    let lab = Lab::new()?;

    show_spec_and_lab(&page)?;
    page.heading("The router starts");
    page.command(
        "router",
        &format!("egress-router run --config {SPEC} --log-level debug"),
    );
    let router = start_router(&lab)?;
    let started = router.log();
    show_log(&page, &started);

    let shown = Demonstration {
        page: &page,
        lab: &lab,
    }
    .show()
    .with_context(|| format!("the router's log:\n{}", router.log()));
    let log = router.log();
    shown?;
    page.heading("The router's log since it was ready");
    show_log(&page, log.strip_prefix(&started).unwrap_or(&log).trim());
    let status = router.stop()?;
    ensure!(status.success(), "the router ended with {status}");

    page.heading("What next");
    println!(
        "\
The router is stopped, and everything is cleaned up.

  cargo xtask test                          every test, in labs like this one
  cargo xtask build --release               the binary for your own pod
  target/debug/egress-router check FILE     check your own spec
  README.md, docs/packet-flow.md            what the router does, and how"
    );
    Ok(())
}

/// Shows the spec beside a drawing of its network.
fn show_spec_and_lab(page: &Page) -> Result<()> {
    page.heading("The spec and the lab");
    let text = sh().read_file(example_spec())?;
    // Without its comments, which are for readers of the file.
    let spec: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    page.remark(SPEC);
    page.side_by_side(
        &spec.join("\n"),
        include_str!("demo/drawing.txt").trim_end(),
    );
    Ok(())
}

fn start_router(lab: &Lab) -> Result<RouterProcess> {
    let spec = example_spec();
    let arguments = [
        "run".into(),
        "--config".into(),
        spec.into(),
        "--log-level".into(),
        "debug".into(),
    ];
    RouterProcess::start(lab, &arguments)
}

/// Shows a log without the times of its lines.
fn show_log(page: &Page, log: &str) {
    for line in log.lines() {
        match parse_log_line(line) {
            Some((level, message)) => page.output(&format!("{level:5}  {message}"), 7),
            None => page.output(line, 0),
        }
    }
}

/// Level and message of `[time level] message`.
fn parse_log_line(line: &str) -> Option<(&str, &str)> {
    let (head, message) = line.strip_prefix('[')?.split_once("] ")?;
    let (_, level) = head.trim_end().rsplit_once(' ')?;
    Some((level, message))
}

/// Traffic through a running router.
struct Demonstration<'d> {
    page: &'d Page,
    lab: &'d Lab,
}

impl Demonstration<'_> {
    fn show(&self) -> Result<()> {
        let _http = HttpServer::start(self.lab.servers(), HTTP.server())?;
        let _tls = HttpServer::start(self.lab.servers(), TLS.server())?;
        self.page.heading("A client connects to the router");
        self.ask_over_http()?;
        self.ask_over_udp()?;
        self.ask_an_undefined_port()?;
        // Still open when the flows are listed.
        let _open = tcp::connect(self.lab.client(), TLS.service())?;

        self.page.heading("What the router has done");
        self.page.remark(
            "`>` is from clients to servers, `<` is back. One connection to port 8443 is still open.",
        );
        self.router_command("rules")?;
        println!();
        self.router_command("flows")?;
        println!();
        self.router_command("status")?;
        Ok(())
    }

    fn ask_over_http(&self) -> Result<()> {
        self.page.remark(
            "The servers answer with the client address that they see. Port 443 speaks plain HTTP.",
        );
        for rule in [HTTP, TLS] {
            let answer =
                self.client_command(&format!("curl -sS -m 5 http://{}/", rule.service()))?;
            expect_reserved(&answer)?;
        }
        self.client_command(&format!(
            "curl -sS -m 15 http://{}/bytes/10000000 | wc -c",
            HTTP.service()
        ))?;
        Ok(())
    }

    fn ask_over_udp(&self) -> Result<()> {
        let server = udp::bind(self.lab.servers(), DATAGRAM.server())?;
        let serving = thread::spawn(move || -> Result<()> {
            let (_, peer) = udp::receive(&server)?;
            server.send_to(format!("{}\n", peer.ip()).as_bytes(), peer)?;
            Ok(())
        });
        let service = DATAGRAM.service();
        let question = format!(
            "exec 3<>/dev/udp/{}/{}; echo hi >&3; timeout 5 head -n 1 <&3",
            service.ip(),
            service.port()
        );
        let answer = self.client_command(&question)?;
        serving.join().expect("no panic")?;
        expect_reserved(&answer)
    }

    fn ask_an_undefined_port(&self) -> Result<()> {
        println!();
        self.page.remark(
            "No rule has this port: the packet goes to the pod's own stack, which refuses it.",
        );
        let service = SocketAddr::new(ROUTER_ETH0.address, UNDEFINED_PORT);
        let line = format!("curl -sS -m 5 http://{service}/");
        self.page.command("client", &line);
        let output = shell(self.lab.client(), &line)?;
        ensure!(
            output.status.code() == Some(CURL_CANNOT_CONNECT),
            "curl ended with {}, expected a refusal",
            output.status
        );
        self.page
            .output(String::from_utf8_lossy(&output.stderr).trim_end(), 0);
        Ok(())
    }

    /// Shows a command on the client and its output, and returns the output.
    fn client_command(&self, line: &str) -> Result<String> {
        self.page.command("client", line);
        let output = shell(self.lab.client(), line)?;
        ensure!(
            output.status.success(),
            "`{line}` failed ({}): {}",
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let text = String::from_utf8_lossy(&output.stdout);
        print!("{text}");
        Ok(text.into_owned())
    }

    /// Shows a command of the router and runs it in the pod. The program fits its output to the terminal itself.
    fn router_command(&self, command: &str) -> Result<()> {
        self.page
            .command("router", &format!("egress-router {command}"));
        let mut program = self.lab.router().command(router::binary()?);
        let status = program.arg(command).stdin(Stdio::null()).status()?;
        ensure!(status.success(), "`{command}` failed ({status})");
        Ok(())
    }
}

/// Checks that a server saw the reserved address.
fn expect_reserved(answer: &str) -> Result<()> {
    ensure!(
        answer.trim() == ROUTER_NET1.address.to_string(),
        "the server saw {answer:?}, expected the reserved address {}",
        ROUTER_NET1.address
    );
    Ok(())
}

/// Runs a command line in one of the lab's namespaces.
fn shell(namespace: &Namespace, line: &str) -> Result<Output> {
    namespace
        .command("bash")
        .args(["-c", line])
        .stdin(Stdio::null())
        // Ignores the user's ~/.curlrc and proxies, which do not fit the lab.
        .env("CURL_HOME", "/nonexistent")
        .env("HOME", "/nonexistent")
        .env("no_proxy", "*")
        .output()
        .with_context(|| format!("starting `{line}` in the {}", namespace.role()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_has_a_level_and_a_message() {
        assert_eq!(
            parse_log_line("[2025-01-01T00:00:00Z INFO ] ready: attached"),
            Some(("INFO", "ready: attached"))
        );
        assert_eq!(
            parse_log_line("[2025-01-01T00:00:00Z DEBUG] flow [1] opened"),
            Some(("DEBUG", "flow [1] opened"))
        );
        assert_eq!(parse_log_line("panicked"), None);
    }
}
