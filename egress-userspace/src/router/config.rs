//! What a router is started with, apart from the resource.

use std::{net::SocketAddr, path::PathBuf};

use egress_common::Timeouts;
use log::LevelFilter;

use crate::dataplane::{AttachMode, Options};

/// The settings of a router. The defaults are those of `egress-router run`.
#[derive(Clone, Debug)]
pub struct RouterConfig {
    /// The interface on the cluster network, where clients connect.
    pub cluster_interface: String,
    /// The interface on the external network, which has the reserved addresses.
    pub egress_interface: String,
    /// How many flows of each family there may be at once.
    pub max_flows: u32,
    /// How many rules there may be, if a later resource is to have many more than the first one.
    pub max_rules: Option<u32>,
    /// How long idle flows live.
    pub timeouts: Timeouts,
    /// What becomes of the flows of a rule that a reload removes or changes.
    pub on_rule_change: OnRuleChange,
    /// Whether and where the dataplane is pinned.
    pub pinning: Pinning,
    /// How to attach; `None` for tcx where the kernel has it, else clsact.
    pub attach_mode: Option<AttachMode>,
    /// The file of the flow log, or `-` for standard output.
    pub flow_log: Option<String>,
    /// Where metrics and health are served.
    pub metrics_address: Option<SocketAddr>,
    /// What the kernel half logs.
    pub log_level: LevelFilter,
    /// The file that the resource was read from. The router reads it again when it changes.
    pub spec_file: Option<String>,
}

/// What becomes of the flows of a rule that a reload removes or changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRuleChange {
    /// They stay as they are until they end.
    #[default]
    Keep,
    /// They end. TCP peers get a RST when they next send.
    Close,
}

/// Whether and where the dataplane is pinned, so that it outlives the process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Pinning {
    /// Nowhere.
    Off,
    /// By the resource's name under [`Pins::DEFAULT`](crate::dataplane::Pins::DEFAULT), if that is in a BPF file
    /// system.
    #[default]
    IfPossible,
    /// In the same place, or the router does not start.
    Required,
    /// In this directory, or the router does not start.
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
