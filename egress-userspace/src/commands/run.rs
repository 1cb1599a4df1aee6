//! `egress-router run`: the router itself.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    process,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::ValueEnum;
use egress_common::{Config, LAYOUT_VERSION, NatRange, Side};
use egress_userspace::{
    dataplane::{
        self, AttachMode, Attachment, Dataplane, DiscoverError, Instance, NextHops, Options,
        Presence, Taken,
    },
    interface::{self, Change, Interface, Interfaces},
    kernel,
    spec::{self, EgressRouter, Family},
};
use futures_util::StreamExt as _;
use log::LevelFilter;
use thiserror::Error;
use tokio::{
    io::{Interest, unix::AsyncFd},
    signal::unix::{SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::timeout;

/// How often idle flows are ended.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// How many changes are seen as one.
const CHANGES: usize = 1024;
/// How often next hops are looked at, if nothing tells of a change.
const NEXT_HOP_INTERVAL: Duration = Duration::from_millis(250);

const EXAMPLES: &str = "\
Examples:
  egress-router run --config router.yaml
  egress-router run --config router.yaml --cluster-interface eth0 --egress-interface net1
  egress-router run --config router.yaml --max-flows 1000000 --timeout tcp_established=4h --timeout udp=15s
  nsenter --net=/run/netns/pod egress-router run --config router.yaml --log-level debug";

/// Redirect traffic by a spec, until SIGTERM or SIGINT
///
/// Loads the dataplane, fills it by the spec, attaches it to both interfaces and keeps it current.
///
/// It runs in the network namespace of the router's pod, as root or with CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN. On
/// SIGTERM or SIGINT it detaches and ends.
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

    /// How to attach to the interfaces
    #[arg(long, value_enum, default_value_t = Attach::Auto)]
    attach: Attach,

    /// What to log: the router's own doings, and with debug or trace also what the kernel half decides for packets
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = ["off", "error", "warn", "info", "debug", "trace"])]
    log_level: String,
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

/// Another router is attached already.
#[derive(Debug, Error)]
#[error(
    "another egress router ({}) is attached to {interface}; stop that one first, \
     or look at it with `egress-router status`",
    .pid.map_or_else(|| "whose process is not to be seen from here".to_owned(), |pid| format!("process {pid}"))
)]
pub struct AlreadyRunning {
    pid: Option<u32>,
    interface: String,
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

    let router = spec::load(&args.config)?;
    kernel::check_privileges()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(serve(&args, &router, level))?;
    Ok(ExitCode::SUCCESS)
}

async fn serve(args: &Args, router: &EgressRouter, level: LevelFilter) -> anyhow::Result<()> {
    // Before anything is attached, so that no signal finds us without a handler.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let interfaces = Interfaces::connect()?;
    let cluster = interfaces
        .find(
            &args.cluster_interface,
            "name the one on the cluster network with --cluster-interface",
        )
        .await?;
    let egress = interfaces
        .find(
            &args.egress_interface,
            "name the one on the external network with --egress-interface",
        )
        .await?;
    interface::check(&cluster, &egress, reserved(router))?;
    let _presence = claim(&cluster, &egress)?;
    replace_leftover(&interfaces, &cluster, &egress).await?;
    warn_of_forwarding();

    let (mut dataplane, attachment) = start(args, router, level, &cluster, &egress)?;
    // SAFETY: the reader owns its file descriptor, and keeps it open as long as it is itself.
    let mut log_records =
        unsafe { AsyncFd::register_with_interest(dataplane.log_reader()?, Interest::READABLE) }
            .map_err(io::Error::from)?;
    for line in summary(router) {
        log::info!("{line}");
    }
    log::info!(
        "ready: attached by {} to {cluster} and {egress}",
        attachment.mode
    );

    // All that have come in the meantime at once.
    let mut changes = Interfaces::changes()?.ready_chunks(CHANGES);
    let mut sweeps = interval(SWEEP_INTERVAL);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut next_hops = NextHops::default();
    let mut looks = interval(NEXT_HOP_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let Config {
        timeouts,
        kernel_expiry,
        ..
    } = dataplane.maps.config()?;
    let reason = loop {
        tokio::select! {
            _ = terminate.recv() => break "SIGTERM",
            _ = interrupt.recv() => break "SIGINT",
            changed = changes.next() => {
                let changed = changed.unwrap_or_default();
                if changed.iter().any(|change| *change != Change::Neighbours)
                    && let Err(error) = next_hops.begin_anew(&mut dataplane.maps)
                {
                    log::error!("next hops may be those of another route: {error}");
                }
                look_for_next_hops(&mut next_hops, &mut dataplane, &interfaces, [&cluster, &egress]).await;
                if changed.contains(&Change::Interfaces)
                    && let Err(error) = refresh(&mut dataplane, &interfaces, [&cluster, &egress], router).await {
                    log::error!("the addresses of the interfaces are not current: {error:#}");
                }
            }
            _ = looks.tick() => {
                look_for_next_hops(&mut next_hops, &mut dataplane, &interfaces, [&cluster, &egress]).await;
            }
            _ = sweeps.tick(), if kernel_expiry == 0 => {
                let now_ns = kernel::monotonic_ns();
                let v4 = dataplane::sweep(&mut dataplane.maps.v4, &timeouts, now_ns)?;
                let v6 = dataplane::sweep(&mut dataplane.maps.v6, &timeouts, now_ns)?;
                if v4.ended + v6.ended > 0 {
                    log::debug!("ended {} idle flows, {} live on", v4.ended + v6.ended, v4.live + v6.live);
                }
            }
            ready = log_records.readable_mut() => {
                let mut ready = ready?;
                ready.get_inner_mut().flush();
                ready.clear_ready();
            }
        }
    };
    log::info!("{reason}: detaching");
    attachment.detach(dataplane, &interfaces).await;
    Ok(())
}

/// Brings the next hops up to date. Without them the kernel half asks the kernel, so an error is no reason to end.
async fn look_for_next_hops(
    next_hops: &mut NextHops,
    dataplane: &mut Dataplane,
    interfaces: &Interfaces,
    pair: [&Interface; 2],
) {
    if let Err(error) = next_hops
        .refresh(&mut dataplane.maps, interfaces, pair)
        .await
    {
        log::warn!(
            "next hops are not current, the kernel looks for them with each packet: {error}"
        );
    }
}

/// The reserved addresses that the spec's rules leave from.
fn reserved(router: &EgressRouter) -> impl Iterator<Item = (IpAddr, u8)> {
    router
        .spec
        .addresses
        .iter()
        .map(|own| (own.ip.address, own.ip.prefix_length))
}

/// Claims both interfaces, which no other running router may have.
fn claim(cluster: &Interface, egress: &Interface) -> anyhow::Result<Presence> {
    let Taken { ifindex } = match Presence::claim([cluster.index, egress.index])? {
        Ok(presence) => return Ok(presence),
        Err(taken) => taken,
    };
    let has_it = |other: &Instance| {
        [other.config.cluster_ifindex, other.config.egress_ifindex].contains(&ifindex)
    };
    let pid = dataplane::discover()
        .ok()
        .and_then(|instances| instances.into_iter().find(has_it))
        .map(|instance| instance.config.pid);
    let interface = [cluster, egress]
        .into_iter()
        .find(|interface| interface.index == ifindex)
        .map_or_else(|| ifindex.to_string(), |interface| interface.name.clone());
    Err(AlreadyRunning { pid, interface }.into())
}

/// Cleans up after a router that was killed: by clsact its programs stay attached.
async fn replace_leftover(
    interfaces: &Interfaces,
    cluster: &Interface,
    egress: &Interface,
) -> anyhow::Result<()> {
    let instances = match dataplane::discover() {
        Ok(instances) => instances,
        Err(error @ DiscoverError::List(_)) => {
            log::debug!("cannot see what a killed router may have left: {error}");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let ours = [cluster.index, egress.index];
    for Instance { config, .. } in instances {
        let shared =
            ours.contains(&config.cluster_ifindex) || ours.contains(&config.egress_ifindex);
        if shared && Instance::detach_leftover(interfaces, cluster, egress).await? {
            log::warn!(
                "replaced the dataplane that process {}, which is gone, had left attached",
                config.pid
            );
        }
    }
    Ok(())
}

/// Forwarding by the kernel goes around the rules: through it a host on the external network could reach the cluster.
fn warn_of_forwarding() {
    if kernel::ip_forward().unwrap_or(false) {
        log::warn!(
            "net.ipv4.ip_forward is 1: the kernel forwards packets beside the rules; \
             the router does not need it, set it to 0"
        );
    }
}

/// Loads, fills and attaches the dataplane.
fn start(
    args: &Args,
    router: &EgressRouter,
    level: LevelFilter,
    cluster: &Interface,
    egress: &Interface,
) -> anyhow::Result<(Dataplane, Attachment)> {
    let rules =
        u32::try_from(router.spec.redirect.redirect_rules.len()).context("too many rules")?;
    let features = kernel::features()?;
    // A family without a reserved address has no flows, and gets no memory for any.
    let max_flows = |used: bool| if used { args.max_flows } else { 1 };
    let mut dataplane = Dataplane::load(&Options {
        cluster_ifindex: cluster.index,
        egress_ifindex: egress.index,
        max_flows_v4: max_flows(router.reserved_v4().is_some()),
        max_flows_v6: max_flows(router.reserved_v6().is_some()),
        // One more, for the fallback.
        max_rules: (rules + 1).next_power_of_two().max(Options::MIN_RULES),
        log_level: level,
        features,
    })?;
    let nat_range = NatRange::without(
        kernel::local_port_range().context("could not read the local port range")?,
    );
    anyhow::ensure!(
        !nat_range.is_empty(),
        "net.ipv4.ip_local_port_range covers every port: none is left for flows; make it smaller"
    );
    dataplane.maps.set_config(&Config {
        layout_version: LAYOUT_VERSION,
        cluster_ifindex: cluster.index,
        egress_ifindex: egress.index,
        pid: process::id(),
        netns_inode: kernel::netns_inode()
            .context("could not tell which network namespace this is")?,
        started_ns: kernel::monotonic_ns(),
        nat_range,
        reserved_v4: router
            .reserved_v4()
            .map_or_else(bytemuck::Zeroable::zeroed, |(address, _)| address.into()),
        reserved_v6: router
            .reserved_v6()
            .map_or_else(bytemuck::Zeroable::zeroed, |(address, _)| address.into()),
        max_flows: args.max_flows,
        fallback_v4: match router.spec.redirect.fallback_ip {
            Some(IpAddr::V4(address)) => address.into(),
            _ => bytemuck::Zeroable::zeroed(),
        },
        fallback_v6: match router.spec.redirect.fallback_ip {
            Some(IpAddr::V6(address)) => address.into(),
            _ => bytemuck::Zeroable::zeroed(),
        },
        fallback_rule: rules,
        cluster_mtu: cluster.mtu,
        egress_mtu: egress.mtu,
        kernel_expiry: u32::from(features.kernel_expiry),
        timeouts: timeout::apply(&args.timeouts),
    })?;
    dataplane.maps.set_rules(router)?;
    dataplane
        .maps
        .set_addresses(Side::Cluster, &cluster.addresses)?;
    dataplane
        .maps
        .set_addresses(Side::Egress, &egress.addresses)?;
    if features.kernel_expiry {
        dataplane.start_expiry()?;
    }
    // Last, when all is in place: the first packet finds every rule.
    let attachment = dataplane.attach(cluster, egress, args.attach.wish())?;
    Ok((dataplane, attachment))
}

/// One line for each rule, and one for the fallback.
fn summary(router: &EgressRouter) -> impl Iterator<Item = String> {
    let redirect = &router.spec.redirect;
    let from = |address: IpAddr| {
        let reserved = router.reserved(Family::of(address));
        reserved.map_or_else(|| "nowhere".to_owned(), |address| address.to_string())
    };
    let rules = redirect
        .redirect_rules
        .iter()
        .enumerate()
        .map(move |(id, rule)| {
            let destination = SocketAddr::new(rule.destination_ip, rule.destination_port().get());
            let from = from(rule.destination_ip);
            format!(
                "rule {id}: {}/{} → {destination} from {from}",
                rule.port, rule.protocol
            )
        });
    let fallback = redirect.fallback_ip.map(move |address| {
        format!(
            "fallback: every other port → {address} from {}",
            from(address)
        )
    });
    rules.chain(fallback)
}

/// Brings the maps up to date with the interfaces' addresses and MTUs.
async fn refresh(
    dataplane: &mut Dataplane,
    interfaces: &Interfaces,
    [cluster, egress]: [&Interface; 2],
    router: &EgressRouter,
) -> anyhow::Result<()> {
    let config = dataplane.maps.config()?;
    let current = Config {
        cluster_mtu: interfaces.mtu(cluster.index).await?,
        egress_mtu: interfaces.mtu(egress.index).await?,
        ..config
    };
    if current != config {
        dataplane.maps.set_config(&current)?;
    }
    for (side, interface) in [(Side::Cluster, cluster), (Side::Egress, egress)] {
        let addresses = interfaces.addresses(interface.index).await?;
        dataplane.maps.set_addresses(side, &addresses)?;
        if side == Side::Egress {
            for (address, _) in reserved(router).filter(|(address, _)| !addresses.contains(address))
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
