//! The settings of a router that are not in the resource.

use std::{net::SocketAddr, path::PathBuf};

use egress_common::Timeouts;
use log::LevelFilter;

use crate::dataplane::{AttachMode, Options};

/// The settings of a router. The defaults are those of `egress-router run`.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// The interface on the cluster network, where clients connect.
    pub cluster_interface: String,
    /// The interface on the external network, which carries the reserved addresses.
    pub egress_interface: String,
    /// The maximum number of concurrent flows, per address family.
    pub max_flows: u32,
    /// The number of rules to reserve space for, if a reload may bring many more than the first resource has.
    pub max_rules: Option<u32>,
    /// The idle timeouts of flows.
    pub timeouts: Timeouts,
    /// What happens to the flows of a rule that a reload removes or changes.
    pub on_rule_change: OnRuleChange,
    /// Whether and where the dataplane is pinned.
    pub pinning: Pinning,
    /// How to attach; `None` for tcx if the kernel has it, otherwise clsact.
    pub attach_mode: Option<AttachMode>,
    /// The file of the flow log, or `-` for standard output.
    pub flow_log: Option<String>,
    /// The address that serves metrics and health; `None` for no server.
    pub metrics_address: Option<SocketAddr>,
    /// The log level of the kernel half.
    pub log_level: LevelFilter,
    /// The file that the resource was read from. The router reloads it when it changes.
    pub spec_file: Option<String>,
}

/// What happens to the flows of a rule that a reload removes or changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRuleChange {
    /// They continue unchanged until they end.
    #[default]
    Keep,
    /// The reload ends them. A TCP peer gets a RST when it next sends.
    Close,
}

/// Whether and where the dataplane is pinned, so that it outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pinning {
    /// It is not pinned.
    Off,
    /// In the directory of the resource's name under [`Pins::DEFAULT`](crate::dataplane::Pins::DEFAULT), if that is in
    /// a BPF file system.
    #[default]
    IfPossible,
    /// In the same directory; otherwise the router does not start.
    Required,
    /// In this directory; otherwise the router does not start.
    At(PathBuf),
}

impl Default for RouterConfig {
    fn default() -> Self {
        Self {
            cluster_interface: "eth0".to_owned(),
            egress_interface: "net1".to_owned(),
            max_flows: Options::DEFAULT_MAX_FLOWS,
            max_rules: None,
            timeouts: Timeouts::DEFAULT,
            on_rule_change: OnRuleChange::default(),
            pinning: Pinning::default(),
            attach_mode: None,
            flow_log: None,
            metrics_address: None,
            log_level: LevelFilter::Info,
            spec_file: None,
        }
    }
}
