//! `egress-router run`: runs the router.

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::ValueEnum;
use egress_api::{EgressRouter, STDIN};
use log::LevelFilter;
use tokio::signal::unix::{SignalKind, signal};

use super::timeout;
use crate::{
    dataplane::{AttachMode, Options},
    net::{kernel, privileges},
    router::{self, Pinning, Router, RouterConfig},
};

const EXAMPLES: &str = "\
Examples:
  egress-router run --config router.yaml
  egress-router run --config router.yaml --egress-interface net2
  egress-router run --config router.yaml --max-flows 1000000 --timeout udp=15s
  nsenter --net=/run/netns/pod egress-router run --config router.yaml";

/// Run the router until SIGTERM or SIGINT
///
/// Loads the dataplane, fills its maps from the spec, attaches it to both interfaces and keeps it up to date.
///
/// It runs in the network namespace of the router's pod, as root or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN. Once
/// attached, it drops most capabilities. On SIGTERM or SIGINT it detaches and ends. If it is killed, or ends with
/// --keep, the dataplane keeps forwarding. The next `run` takes it over with its flows and counters, and no packet is
/// lost.
///
/// When the spec changes, or on SIGHUP, the new rules replace the old ones in one step. A spec with errors is refused,
/// and the old rules stay; `egress-router status` shows why.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = format!("{}\n{EXAMPLES}", timeout::help()))]
pub struct Args {
    /// The EgressRouter resource, in YAML or JSON; `-` is standard input
    #[arg(long, value_name = "FILE")]
    config: String,

    /// The interface on the cluster network, where clients connect
    #[arg(long, value_name = "NAME", default_value = "eth0")]
    cluster_interface: String,

    /// The interface on the external network, which has the reserved address
    #[arg(long, value_name = "NAME", default_value = "net1")]
    egress_interface: String,

    /// The maximum number of flows of each family. The kernel allocates their memory at the start: 312 bytes for each
    /// IPv4 flow, 432 for each IPv6 flow
    #[arg(long, value_name = "NUMBER", default_value_t = Options::DEFAULT_MAX_FLOWS,
          value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    max_flows: u32,

    /// The idle timeout of a state, in seconds or with a unit: 90s, 2h, 5days. Can be repeated. `run --help` lists the
    /// names and defaults, which are netfilter's
    #[arg(long = "timeout", value_name = "NAME=TIME")]
    timeouts: Vec<timeout::Setting>,

    /// The maximum number of rules, if a later spec will have many more than this one [default: at least 1024]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=196_608))]
    max_rules: Option<u32>,

    /// What happens to flows if a change of the spec removes their rule or changes its destination
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnRuleChange::Keep)]
    on_rule_change: OnRuleChange,

    /// The directory in the BPF file system where the dataplane is pinned, so that it outlives this process [default:
    /// /sys/fs/bpf/egress-router/NAME, from metadata.name]
    #[arg(long, value_name = "DIRECTORY")]
    pin_path: Option<PathBuf>,

    /// Do not pin the dataplane: it ends with this process
    #[arg(long, conflicts_with_all = ["pin_path", "keep"])]
    no_pin: bool,

    /// On SIGTERM or SIGINT, leave the dataplane attached for the next `run` to take over
    #[arg(long)]
    keep: bool,

    /// How to attach to the interfaces
    #[arg(long, value_enum, default_value_t = Attach::Auto)]
    attach: Attach,

    /// Write a line of JSON to this file for each flow that is opened or has ended; `-` is standard output
    #[arg(long, value_name = "FILE")]
    flow_log: Option<String>,

    /// Serve /metrics, /healthz and /readyz on this address, on the cluster interface and the loopback only
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_address: Option<SocketAddr>,

    /// What to log. debug and trace include what the kernel half decides for packets
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = ["off", "error", "warn", "info", "debug", "trace"])]
    log_level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnRuleChange {
    /// They continue until they end
    Keep,
    /// They end; TCP peers get a RST when they next send
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Attach {
    /// tcx if the kernel has it (Linux 6.6), else clsact
    Auto,
    /// By a link to the interface's own hook
    Tcx,
    /// By a filter on a clsact qdisc
    Clsact,
}

impl From<OnRuleChange> for router::OnRuleChange {
    fn from(what: OnRuleChange) -> Self {
        match what {
            OnRuleChange::Keep => Self::Keep,
            OnRuleChange::Close => Self::Close,
        }
    }
}

impl Attach {
    const fn mode(self) -> Option<AttachMode> {
        match self {
            Self::Auto => None,
            Self::Tcx => Some(AttachMode::Tcx),
            Self::Clsact => Some(AttachMode::Clsact),
        }
    }
}

impl Args {
    fn config(&self) -> RouterConfig {
        RouterConfig {
            cluster_interface: self.cluster_interface.clone(),
            egress_interface: self.egress_interface.clone(),
            max_flows: self.max_flows,
            max_rules: self.max_rules,
            timeouts: timeout::apply(&self.timeouts),
            on_rule_change: self.on_rule_change.into(),
            pinning: match &self.pin_path {
                Some(directory) => Pinning::At(directory.clone()),
                None if self.no_pin => Pinning::Off,
                None if self.keep => Pinning::Required,
                None => Pinning::IfPossible,
            },
            attach_mode: self.attach.mode(),
            flow_log: self.flow_log.clone(),
            metrics_address: self.metrics_address,
            log_level: self.log_level(),
            spec_file: (self.config != STDIN).then(|| self.config.clone()),
        }
    }

    fn log_level(&self) -> LevelFilter {
        self.log_level
            .parse()
            .expect("clap accepts only the names of levels")
    }
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let level = args.log_level();
    // The level is for the router's own log. The netlink crates log every message at debug and trace.
    env_logger::Builder::new()
        .filter_module("egress", level)
        .filter_level(level.min(LevelFilter::Warn))
        .format_target(false)
        .init();

    let resource = egress_api::load(&args.config)?;
    kernel::check_privileges()?;
    privileges::set_no_new_privs()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(&args, resource));
    // Does not wait for a walk of the flow table that a scrape has started.
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS)
}

/// What a signal requests.
enum Request {
    ReopenFiles,
    End(&'static str),
}

async fn serve(args: &Args, resource: EgressRouter) -> anyhow::Result<()> {
    // Installed before anything is attached, so that no signal ends the process without detaching.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut router = Router::start(args.config(), resource).await?;
    privileges::drop_unneeded(router.changes_network())?;
    log::info!(
        "ready: attached by {} to {} and {}",
        router.attach_mode(),
        router.cluster_interface(),
        router.egress_interface()
    );
    let reason = loop {
        let request = async {
            tokio::select! {
                _ = terminate.recv() => Request::End("SIGTERM"),
                _ = interrupt.recv() => Request::End("SIGINT"),
                _ = hang_up.recv() => Request::ReopenFiles,
            }
        };
        match router.run_until(request).await? {
            Request::ReopenFiles => router.reopen_files("SIGHUP").await,
            Request::End(signal) => break signal,
        }
    };
    let finished = if args.keep {
        log::info!("{reason}: leaving the dataplane attached");
        router.leave()
    } else {
        log::info!("{reason}: detaching");
        router.shut_down().await
    };
    finished.context("the flow log is incomplete")
}
