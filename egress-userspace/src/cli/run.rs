//! `egress-router run`: the router itself.

mod leftover;
mod reload;
mod start;

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use clap::ValueEnum;
use egress_api::{EgressRouter, RuleTable};
use egress_common::{Config, Side};
use futures_util::StreamExt as _;
use ipnet::IpNet;
use log::LevelFilter;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

pub use self::{leftover::StillAttached, start::AlreadyRunning};
use self::{reload::SpecFile, start::Started};
use super::timeout;
use crate::{
    dataplane::{AttachMode, Dataplane, NextHops, Options},
    net::{
        interface::{Change, Interface, Interfaces},
        kernel, privileges,
    },
    telemetry::metrics::{Reloads, RunState},
};

/// How often idle flows are ended.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// How many changes are seen as one.
const CHANGES: usize = 1024;
/// How often next hops are looked at, if nothing tells of a change.
const NEXT_HOP_INTERVAL: Duration = Duration::from_millis(250);
/// How often the spec is looked at.
const SPEC_INTERVAL: Duration = Duration::from_secs(1);

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

impl Attach {
    const fn wish(self) -> Option<AttachMode> {
        match self {
            Self::Auto => None,
            Self::Tcx => Some(AttachMode::Tcx),
            Self::Clsact => Some(AttachMode::Clsact),
        }
    }
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let level: LevelFilter = args
        .log_level
        .parse()
        .expect("clap admits the levels' names only");
    // The netlink crates log each message at debug and trace: the router's own log is meant.
    env_logger::Builder::new()
        .filter_module("egress", level)
        .filter_level(level.min(LevelFilter::Warn))
        .format_target(false)
        .init();

    let router = egress_api::load(&args.config)?;
    kernel::check_privileges()?;
    privileges::renounce_new_ones()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let served = runtime.block_on(serve(&args, router, level));
    // Without waiting for a walk through the flow table that a scrape has begun.
    runtime.shutdown_background();
    served.map(|()| ExitCode::SUCCESS)
}

async fn serve(args: &Args, spec: EgressRouter, level: LevelFilter) -> anyhow::Result<()> {
    // Before anything is attached, so that no signal finds us without a handler.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut spec_file = SpecFile::new(&args.config);

    let interfaces = Interfaces::connect()?;
    let Started {
        _presence,
        cluster,
        egress,
        dataplane,
        attachment,
        mut recorder,
        mut queries,
    } = start::start(args, &spec, level, &interfaces).await?;
    let mut router = Router {
        args,
        reloads: Reloads::new(SystemTime::now()),
        started: SystemTime::now(),
        spec,
        interfaces: &interfaces,
        cluster,
        egress,
        dataplane,
        next_hops: NextHops::default(),
    };
    // What an earlier process knew is not kept up to date any more.
    router.next_hops.begin_anew(&mut router.dataplane.maps)?;
    // SAFETY: the reader owns its file descriptor, and keeps it open as long as it is itself.
    let mut log_records = unsafe {
        AsyncFd::register_with_interest(router.dataplane.log_reader()?, Interest::READABLE)
    }
    .map_err(io::Error::from)?;
    for line in start::summary(&router.spec) {
        log::info!("{line}");
    }
    log::info!(
        "ready: attached by {} to {} and {}",
        attachment.mode,
        router.cluster,
        router.egress
    );

    // All that have come in the meantime at once.
    let mut changes = Interfaces::changes()?.ready_chunks(CHANGES);
    let mut sweeps = every(SWEEP_INTERVAL);
    let mut looks = every(NEXT_HOP_INTERVAL);
    let mut spec_looks = every(SPEC_INTERVAL);
    let kernel_expiry = router.dataplane.maps.instance()?.kernel_expiry;
    let reason = loop {
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            _ = hang_up.recv() => {
                if let Err(error) = recorder.reopen() {
                    log::error!("the flow log goes on in the file that was open: {error}");
                }
                spec_file.has_changed();
                router.reload("SIGHUP").await;
            }
            recorded = recorder.record() => {
                if let Err(error) = recorded {
                    log::error!("flows are missing in the flow log: {error:#}");
                }
            }
            _ = spec_looks.tick() => {
                if spec_file.has_changed() {
                    router.reload("the spec has changed").await;
                }
            }
            query = queries.next() => query.answer(&router.dataplane.maps, &router.state()),
            changed = changes.next() => router.follow(&changed.unwrap_or_default()).await,
            _ = looks.tick() => router.look_for_next_hops().await,
            _ = sweeps.tick(), if kernel_expiry == 0 => router.sweep()?,
            ready = log_records.readable_mut() => {
                let mut ready = ready?;
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        }
    };
    if args.keep {
        log::info!("{reason}: leaving the dataplane attached");
        attachment.leave();
    } else {
        log::info!("{reason}: detaching");
        attachment.detach(router.dataplane, &interfaces).await;
    }
    recorder
        .finish()
        .context("flows are missing in the flow log")
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = interval(period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The running router.
struct Router<'a> {
    args: &'a Args,
    /// The spec in force.
    spec: EgressRouter,
    interfaces: &'a Interfaces,
    cluster: Interface,
    egress: Interface,
    dataplane: Dataplane,
    next_hops: NextHops,
    started: SystemTime,
    /// How changes of the spec went.
    reloads: Reloads,
}

impl Router<'_> {
    /// What metrics and health say of the router beside what its maps do.
    fn state(&self) -> RunState {
        let servers: BTreeSet<IpAddr> = RuleTable::from(&self.spec).destinations().collect();
        RunState {
            started: self.started,
            attached: true,
            cluster: self.cluster.clone(),
            egress: self.egress.clone(),
            reserved: reserved(&self.spec).map(|own| own.addr()).collect(),
            servers: servers.into_iter().collect(),
            reloads: self.reloads.clone(),
            next_hops: self.next_hops.counts(),
        }
    }

    /// Follows what has changed of the interfaces, routes and neighbours.
    async fn follow(&mut self, changed: &[Change]) {
        if changed.iter().any(|change| *change != Change::Neighbours)
            && let Err(error) = self.next_hops.begin_anew(&mut self.dataplane.maps)
        {
            log::error!("next hops may be those of another route: {error}");
        }
        self.look_for_next_hops().await;
        if changed.contains(&Change::Interfaces)
            && let Err(error) = self.refresh().await
        {
            log::error!("the addresses of the interfaces are not current: {error:#}");
        }
    }

    /// Brings the next hops up to date. Without them the kernel half asks the kernel, so an error is no reason to end.
    async fn look_for_next_hops(&mut self) {
        let pair = [&self.cluster, &self.egress];
        let maps = &mut self.dataplane.maps;
        if let Err(error) = self.next_hops.refresh(maps, self.interfaces, pair).await {
            log::warn!(
                "next hops are not current, the kernel looks for them with each packet: {error}"
            );
        }
    }

    /// Ends idle flows, where the kernel half does not.
    fn sweep(&mut self) -> anyhow::Result<()> {
        let timeouts = self.dataplane.maps.config()?.timeouts;
        let swept = self.dataplane.sweep(&timeouts, kernel::monotonic_ns())?;
        if swept.ended > 0 {
            log::debug!("ended {} idle flows, {} live on", swept.ended, swept.live);
        }
        Ok(())
    }

    /// Brings the maps up to date with the interfaces' addresses and MTUs.
    async fn refresh(&mut self) -> anyhow::Result<()> {
        let maps = &mut self.dataplane.maps;
        let config = maps.config()?;
        let current = Config {
            cluster_mtu: self.interfaces.mtu(self.cluster.index).await?,
            egress_mtu: self.interfaces.mtu(self.egress.index).await?,
            ..config
        };
        if current != config {
            maps.set_config(&current)?;
        }
        for (side, interface) in [(Side::Cluster, &self.cluster), (Side::Egress, &self.egress)] {
            let addresses = self.interfaces.addresses(interface.index).await?;
            maps.set_addresses(side, &addresses)?;
            if side == Side::Egress {
                for address in reserved(&self.spec)
                    .map(|own| own.addr())
                    .filter(|own| !addresses.contains(own))
                {
                    log::error!(
                        "{} has lost the reserved address {address}: answers will not arrive",
                        interface.name
                    );
                }
            }
        }
        Ok(())
    }
}

/// The reserved addresses, in their subnets.
fn reserved(router: &EgressRouter) -> impl Iterator<Item = IpNet> {
    router.spec.addresses.iter().map(|own| own.ip)
}
