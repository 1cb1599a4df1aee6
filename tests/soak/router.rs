//! The router under test, and the resources that it uses.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use egress_tests::{Lab, RouterProcess, Spec, router};
use serde_json::Value;

/// Short timeouts, so that a run does not end with a long wait; the longest is 10 s. Flows of open connections have
/// their default: closing ends them.
const TIMEOUTS: [&str; 7] = [
    "tcp_close_wait=5",
    "tcp_syn_sent=5",
    "tcp_time_wait=5",
    "tcp_fin_wait=5",
    "udp=5",
    "udp_stream=5",
    "icmp=5",
];

/// Longer than every timeout, with a margin for a loaded machine.
const DRAINED_WITHIN: Duration = Duration::from_mins(1);

/// A running router and its lab.
pub struct Router {
    process: RouterProcess,
    namespace: std::path::PathBuf,
}

/// The resources that a process uses.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    pub memory_kib: u64,
    pub files: usize,
}

impl Router {
    pub fn start(lab: &Lab, spec: &Spec) -> Result<Self> {
        let options: Vec<_> = TIMEOUTS
            .into_iter()
            .flat_map(|timeout| ["--timeout", timeout])
            .collect();
        Ok(Self {
            process: lab.start_router_with(&spec.yaml(), &options)?,
            namespace: lab.router().path(),
        })
    }

    pub fn stop(self) -> Result<()> {
        let status = self.process.stop()?;
        anyhow::ensure!(status.success(), "the router ended with {status}");
        Ok(())
    }

    pub fn usage(&self) -> Result<Usage> {
        let process = format!("/proc/{}", self.process.id());
        let status = fs::read_to_string(format!("{process}/status"))?;
        let memory = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next())
            .context("no VmRSS in the process's status")?;
        Ok(Usage {
            memory_kib: memory.parse()?,
            files: fs::read_dir(format!("{process}/fd"))?.count(),
        })
    }

    /// The number of flows.
    pub fn flows(&self) -> Result<u64> {
        let output = std::process::Command::new("nsenter")
            .arg(format!("--net={}", self.namespace.display()))
            .arg(router::binary()?)
            .args(["status", "--output", "json"])
            .output()
            .context("reading the status")?;
        anyhow::ensure!(
            output.status.success(),
            "status: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let status: Value = serde_json::from_slice(&output.stdout)?;
        status["flows"].as_u64().context("the status has no flows")
    }

    /// Waits until there are no flows. Returns how many are left.
    pub fn wait_until_drained(&self) -> Result<u64> {
        let deadline = Instant::now() + DRAINED_WITHIN;
        loop {
            let flows = self.flows()?;
            if flows == 0 || Instant::now() > deadline {
                return Ok(flows);
            }
            thread::sleep(Duration::from_millis(500));
        }
    }
}
