//! The router that is soaked, and what it takes of the machine.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use egress_tests::{Lab, RouterProcess, Spec, router};
use serde_json::Value;

/// Short, so that the end of a run is not one of waiting; the longest is 10 s. Those of open connections are as they are by
/// default: what ends them is that they are closed.
const TIMEOUTS: [&str; 7] = [
    "tcp_close_wait=5",
    "tcp_syn_sent=5",
    "tcp_time_wait=5",
    "tcp_fin_wait=5",
    "udp=5",
    "udp_stream=5",
    "icmp=5",
];

/// Longer than every timeout, by what a loaded machine may take.
const DRAINED_WITHIN: Duration = Duration::from_mins(1);

/// A running router and its lab.
pub struct Router {
    process: RouterProcess,
    namespace: std::path::PathBuf,
}

/// What a process takes.
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

    /// How many flows there are.
    pub fn flows(&self) -> Result<u64> {
        let output = std::process::Command::new("nsenter")
            .arg(format!("--net={}", self.namespace.display()))
            .arg(router::binary()?)
            .args(["status", "--output", "json"])
            .output()
            .context("asking for the status")?;
        anyhow::ensure!(
            output.status.success(),
            "status: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let status: Value = serde_json::from_slice(&output.stdout)?;
        status["flows"].as_u64().context("a status without flows")
    }

    /// Waits until there are no flows; how many there are in the end.
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
