//! `egress-router run`: the router itself.

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

/// Redirect traffic by a spec, until SIGTERM or SIGINT
///
/// Loads the dataplane, fills it by the spec, attaches it to both interfaces and keeps it current.
///
/// It runs in the network namespace of the router's pod, as root or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN, most of
/// which it gives up when it is attached. On
/// SIGTERM or SIGINT it detaches and ends. When it is killed, or ends with --keep, the dataplane goes on; the next `run` takes
/// it over with its flows and counters, and no packet is lost.
///
/// When the spec changes, or on SIGHUP, the new rules replace those before in one step. A spec with errors is refused and
/// the rules stay; `egress-router status` shows why.
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

    /// How many flows of each family there may be at once; the kernel's memory for them is taken at the start,
    /// 312 bytes for each of IPv4 and 432 of IPv6
    #[arg(long, value_name = "NUMBER", default_value_t = Options::DEFAULT_MAX_FLOWS,
          value_parser = clap::value_parser!(u32).range(1..=16_777_216))]
    max_flows: u32,

    /// How long a flow in this state lives after its last packet, in seconds or such as 90s, 2h, 5days; may be given several
    /// times. The names and defaults are netfilter's, and listed below
    #[arg(long = "timeout", value_name = "NAME=TIME")]
    timeouts: Vec<timeout::Setting>,

    /// How many rules there may be, if a later spec is to have many more than now [default: at least 1024]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=196_608))]
    max_rules: Option<u32>,

    /// What becomes of the flows of a rule that a change of the spec removes, or sends elsewhere
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnRuleChange::Keep)]
    on_rule_change: OnRuleChange,

    /// Where in the BPF file system the dataplane is kept, so that it outlives this process
    /// [default: /sys/fs/bpf/egress-router/NAME, by metadata.name]
    #[arg(long, value_name = "DIRECTORY")]
    pin_path: Option<PathBuf>,

    /// Do not keep the dataplane in the BPF file system: it ends with this process
    #[arg(long, conflicts_with_all = ["pin_path", "keep"])]
    no_pin: bool,

    /// On SIGTERM or SIGINT leave the dataplane attached, for the next `run` to take over
    #[arg(long)]
    keep: bool,

    /// How to attach to the interfaces
    #[arg(long, value_enum, default_value_t = Attach::Auto)]
    attach: Attach,

    /// Write a line of JSON to this file for each flow that is opened or has ended; `-` is standard output
    #[arg(long, value_name = "FILE")]
    flow_log: Option<String>,

    /// Serve metrics and health on this address, by the cluster interface and the loopback: /metrics, /healthz, /readyz
    #[arg(long, value_name = "ADDRESS:PORT")]
    metrics_address: Option<SocketAddr>,

    /// What to log: the router's own doings, and with debug or trace also what the kernel half decides for packets
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = ["off", "error", "warn", "info", "debug", "trace"])]
    log_level: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnRuleChange {
    /// They go on as they are, until they end by themselves
    Keep,
    /// They end; TCP peers get a RST when they next send
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Attach {
    /// tcx where the kernel has it (Linux 6.6), else clsact
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
            .expect("clap admits the levels' names only")
    }
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let level = args.log_level();
    // The netlink crates log each message at debug and trace: the router's own log is meant.
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
    // Without waiting for a walk through the flow table that a scrape has begun.
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS)
}

/// What a signal asks for.
enum Request {
    ReopenFiles,
    End(&'static str),
}

async fn serve(args: &Args, resource: EgressRouter) -> anyhow::Result<()> {
    // Before anything is attached, so that no signal finds us without a handler.
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
    finished.context("flows are missing in the flow log")
}
