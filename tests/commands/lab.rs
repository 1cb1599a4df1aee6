//! A router in a lab, the programs attached to its interfaces, and traffic through it.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::ExitStatus;

use anyhow::{Context as _, Result};
use aya::programs::{SchedClassifier, TcAttachType};
use egress_tests::addresses::{DATAGRAM, UNDEFINED_PORT};
use egress_tests::connection::once_free;
pub use egress_tests::router::outcome;
use egress_tests::router::{Suspended, example_spec};
use egress_tests::{Lab, RouterProcess, eventually, udp};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::shell;

/// Each interface with its program.
pub const PROGRAMS: [(&str, &str); 2] = [("eth0", "eth0_ingress"), ("net1", "net1_ingress")];

/// Bytes of an IPv4 and a UDP header.
pub const UDP_HEADERS: u64 = 20 + 8;

/// A running router. If the test fails, its log is printed.
pub struct Running(Option<RouterProcess>);

impl Running {
    /// Starts a router with the example spec and additional options.
    pub fn start(lab: &Lab, options: &[&str]) -> Result<Self> {
        Self::start_by(lab, &example_spec(), options)
    }

    /// Starts a router with another spec and additional options.
    pub fn start_by(lab: &Lab, spec: &Path, options: &[&str]) -> Result<Self> {
        let mut arguments = vec!["run".into(), "--config".into(), spec.into()];
        arguments.extend(options.iter().map(Into::into));
        Ok(Self(Some(RouterProcess::start(lab, &arguments)?)))
    }

    fn process(&self) -> Result<&RouterProcess> {
        self.0.as_ref().context("the router has ended")
    }

    pub fn id(&self) -> Result<u32> {
        Ok(self.process()?.id())
    }

    /// The log so far.
    pub fn log(&self) -> Result<String> {
        Ok(self.process()?.log())
    }

    /// Waits for a log line that contains all of `words`.
    pub fn wait_for_log(&self, words: &[&str]) -> Result<()> {
        eventually(&format!("a line of the log with {words:?}"), || {
            let has_all = |line: &str| words.iter().all(|word| line.contains(word));
            Ok(self.log()?.lines().any(has_all).then_some(()))
        })
    }

    /// Sends SIGTERM and waits for the router to end.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.0.take().context("the router has ended")?.stop()
    }

    /// Sends SIGKILL and waits for the router to end.
    pub fn kill(self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.stop()
    }

    /// Stops the process, but not the kernel half, until the result is dropped.
    pub fn suspend(&self) -> Result<Suspended<'_>> {
        self.process()?.suspend()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process()?.signal(signal)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(router) = &self.0 {
            eprintln!("the router's log:\n{}", router.log());
        }
    }
}

/// What is attached to the router's interfaces: one line for each program attached by TCX, each clsact qdisc and each
/// filter of one.
pub fn attachments(lab: &Lab) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (interface, _) in PROGRAMS {
        for program in tcx_programs(lab, interface)? {
            found.insert(format!("{interface}: {program} by tcx"));
        }
        let qdiscs = tc(lab, &["qdisc", "show", "dev", interface])?;
        if !qdiscs.contains("clsact") {
            continue;
        }
        found.insert(format!("{interface}: clsact"));
        let filters = tc(lab, &["filter", "show", "dev", interface, "ingress"])?;
        // A filter's own line follows those of its priority and, for u32, of its hash table.
        let is_filter = |line: &&str| line.contains(" handle ") || line.contains(" order ");
        for filter in filters.lines().filter(is_filter) {
            let name = PROGRAMS.iter().find(|(_, name)| filter.contains(name));
            let name = name.map_or("another's filter", |(_, name)| name);
            found.insert(format!("{interface}: {name} by clsact"));
        }
    }
    Ok(found)
}

/// What [`attachments`] returns for a router attached by TCX.
pub fn by_tcx() -> BTreeSet<String> {
    PROGRAMS
        .iter()
        .map(|(interface, program)| format!("{interface}: {program} by tcx"))
        .collect()
}

/// What [`attachments`] returns for a router attached by clsact.
pub fn by_clsact() -> BTreeSet<String> {
    PROGRAMS
        .iter()
        .flat_map(|(interface, program)| {
            [
                format!("{interface}: clsact"),
                format!("{interface}: {program} by clsact"),
            ]
        })
        .collect()
}

/// What [`attachments`] returns for a router started without `--attach`.
pub fn by_default() -> BTreeSet<String> {
    if has_tcx() { by_tcx() } else { by_clsact() }
}

/// Whether this kernel has TCX (Linux 6.6).
pub fn has_tcx() -> bool {
    SchedClassifier::query_tcx("lo", TcAttachType::Ingress).is_ok()
}

/// Skips the calling test on a kernel without TCX.
macro_rules! skip_without_tcx {
    () => {
        if !$crate::lab::has_tcx() {
            let test = egress_tests::function_name!();
            egress_tests::requirements::skipped(test, "the kernel has no tcx (Linux 6.6)");
            return Ok(());
        }
    };
}
pub(crate) use skip_without_tcx;

fn tcx_programs(lab: &Lab, interface: &str) -> Result<Vec<String>> {
    lab.router().run(|| {
        // A kernel before 6.6 has no TCX, so nothing is attached by it.
        let query = SchedClassifier::query_tcx(interface, TcAttachType::Ingress);
        let programs = query.map_or_else(|_| Vec::new(), |(_, programs)| programs);
        let name = |program: &aya::programs::ProgramInfo| {
            program.name_as_str().unwrap_or("a program").to_owned()
        };
        Ok(programs.iter().map(name).collect())
    })
}

/// Runs `tc` in the router pod.
pub fn tc(lab: &Lab, arguments: &[&str]) -> Result<String> {
    lab.router().output("tc", arguments)
}

/// The output of `egress-router status --output json`.
pub fn status(lab: &Lab) -> Result<Value> {
    shell::json(lab.router(), &["status"])
}

/// The UDP server's socket.
pub fn datagram_server(lab: &Lab) -> Result<UdpSocket> {
    once_free(|| udp::bind(lab.servers(), DATAGRAM.server()))
}

/// Sends a question and an answer by UDP through the router.
pub fn exchange_datagrams(lab: &Lab) -> Result<()> {
    let server = datagram_server(lab)?;
    let client = udp::connect(lab.client(), DATAGRAM.service())?;
    udp::exchange(&client, &server, b"question", b"answer")?;
    Ok(())
}

/// Sends a datagram to `address` from a host beside the router. The address need not be the router's.
pub fn send_to_net1(lab: &Lab, address: IpAddr) -> Result<()> {
    let net1 = lab.router().interface("net1")?.mac;
    // Nothing answers ARP for an unassigned address.
    lab.neighbour().ip([format!(
        "neighbour replace {address} lladdr {net1} dev eth0 nud permanent"
    )])?;
    let target = SocketAddr::new(address, UNDEFINED_PORT);
    udp::connect(lab.neighbour(), target)?.send(b"unasked for")?;
    Ok(())
}
