//! A flow's share of kernel memory.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use egress_tests::addresses::{NETWORKS, Network};
use egress_tests::{Lab, RouterProcess, Spec};

use crate::bench::progress;
use crate::report::{RatiosOf, Row, Table};
use crate::stats::{Better, Estimate};

/// Two sizes of the flow table. They differ in the memory of flows alone.
const SIZES: [u32; 2] = [65_536, 131_072];

/// Compares the memory of all maps of two routers with flow tables of different sizes.
pub fn measure() -> Result<Table> {
    progress("reading the sizes of the maps");
    let lab = Lab::new()?;
    let mut rows = Vec::new();
    for (network, family) in NETWORKS.iter().zip(["IPv4", "IPv6"]) {
        let [small, large] = SIZES.map(|size| memory_of_maps(&lab, network, size));
        let per_flow = (large? - small?) / f64::from(SIZES[1] - SIZES[0]);
        rows.push(Row::of(
            format!("egress-router, {family}"),
            Estimate::exact(per_flow),
        ));
    }
    rows.push(match conntrack_entry() {
        Ok(size) => Row::of("conntrack entry, either family", Estimate::exact(size)),
        Err(error) => Row::skipped(
            "conntrack entry, either family",
            Some(format!("/proc/slabinfo: {error:#}")),
        ),
    });
    Ok(Table {
        case: "memory",
        title: "Kernel memory of a flow".into(),
        unit: "bytes",
        better: Better::Lower,
        rounds: 1,
        ratios_of: RatiosOf::Value,
        rows,
        notes: vec![
            "The router's is what the kernel accounts for all maps, taken at the start for --max-flows. A conntrack entry \
             has its extensions (NAT among them) beside it, which are not counted here, nor is its hash table."
                .into(),
        ],
        harness_error: None,
    })
}

fn memory_of_maps(lab: &Lab, network: &Network, max_flows: u32) -> Result<f64> {
    let spec = Spec {
        rules: vec![network.http()],
        fallback: None,
    };
    let router = lab.start_router_with(&spec.yaml(), &["--max-flows", &max_flows.to_string()])?;
    locked_by(&router)
}

/// The memory of all maps that a process has open.
fn locked_by(router: &RouterProcess) -> Result<f64> {
    let directory = PathBuf::from(format!("/proc/{}/fdinfo", router.id()));
    let entries =
        fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut bytes = 0.0;
    for entry in entries {
        // A descriptor may have been closed since.
        let info = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| {
            let mut fields = info.lines().filter_map(|line| line.split_once(":\t"));
            let (_, value) = fields.find(|(found, _)| *found == name)?;
            value.trim().parse::<f64>().ok()
        };
        // Programs have the field `memlock`, too.
        if field("map_id").is_some() {
            bytes += field("memlock").context("a map without memlock")?;
        }
    }
    Ok(bytes)
}

/// The object size of the slab for tracked connections.
fn conntrack_entry() -> Result<f64> {
    let slabs = fs::read_to_string("/proc/slabinfo")?;
    let line = slabs
        .lines()
        .find(|line| line.starts_with("nf_conntrack "))
        .context("no nf_conntrack")?;
    let size = line.split_whitespace().nth(3).context("no object size")?;
    Ok(size.parse()?)
}
