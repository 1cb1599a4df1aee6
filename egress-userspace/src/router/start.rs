//! Starting a router: checks, takeover of an earlier dataplane, loading, filling the maps, and attaching.

use std::{
    net::{IpAddr, SocketAddr},
    process,
    time::SystemTime,
};

use egress_api::{EgressRouter, Family, RuleTable};
use egress_common::{Config, Identity, InstanceInfo, LAYOUT_VERSION, NatRange, Side};

use super::{
    Router,
    config::RouterConfig,
    error::StartError,
    events::Events,
    spec_file::SpecFile,
    stale::{self, StaleDataplanes},
    take_over::{self, EarlierDataplane, Unfinished},
};
use crate::{
    dataplane::{
        self, AttachMode, Dataplane, Instance, InstanceLock, InterfacePair, LockError, NextHops,
        Options,
    },
    net::{
        interface::{self, Interface, Interfaces},
        kernel::{self, Features},
    },
    telemetry::{
        flow_log_writer::FlowLogWriter,
        metrics::{self, Reloads},
    },
};

impl Router {
    /// Checks the interfaces and the kernel, takes over or removes the dataplane of an earlier router, and attaches its
    /// own. The caller must be in a single-threaded tokio runtime and in the network namespace of the router's pod.
    ///
    /// # Errors
    ///
    /// The first check or step that fails. The router then leaves nothing new attached.
    pub async fn start(config: RouterConfig, resource: EgressRouter) -> Result<Self, StartError> {
        let spec_file = config.spec_file.as_deref().map(SpecFile::new);
        let table = RuleTable::from(&resource);
        let interfaces = Interfaces::connect()?;
        let cluster = interfaces
            .find(
                &config.cluster_interface,
                "name the one on the cluster network with --cluster-interface",
            )
            .await?;
        let egress = interfaces
            .find(
                &config.egress_interface,
                "name the one on the external network with --egress-interface",
            )
            .await?;
        interface::check(&cluster, &egress, resource.reserved())?;
        let lock = lock(&cluster, &egress)?;
        let pair = InterfacePair {
            netns_inode: kernel::netns_inode()
                .map_err(unreadable("could not identify the network namespace"))?,
            cluster_ifindex: cluster.index,
            egress_ifindex: egress.index,
        };
        let pins = take_over::pins(&config, &resource)?;
        let earlier = match &pins {
            Some(pins) => take_over::take_over(pins, pair)?,
            None => EarlierDataplane::None,
        };
        let stale = StaleDataplanes::find(pins.as_ref(), &cluster, &egress).await?;
        if matches!(earlier, EarlierDataplane::None) {
            stale::remove_filters(&interfaces, &cluster, &egress).await?;
        }
        warn_about_forwarding();

        // Before anything is attached, so that an address that is in use changes nothing.
        let queries = metrics::start(config.metrics_address, &cluster.name, &interfaces)?;

        let features = kernel::features()?;
        let options = options(&config, &table, features, pair);
        let fresh = match &earlier {
            EarlierDataplane::None => pins.as_ref(),
            EarlierDataplane::Replaced(_) | EarlierDataplane::TakenOver(_) => None,
        };
        let unfinished = Unfinished::new(fresh, pair);
        if let (Some(pins), EarlierDataplane::Replaced(_)) = (&pins, &earlier) {
            // As late as possible. Its links stay, so that its programs handle packets until ours replace them.
            pins.remove_all_maps()?;
        }
        let mut dataplane = match &pins {
            Some(pins) => Dataplane::load_pinned(&options, pins)?,
            None => Dataplane::load(&options)?,
        };
        let instance = instance(&config, pair, features, &earlier);
        fill(
            &mut dataplane,
            &config,
            &instance,
            &table,
            [&cluster, &egress],
        )?;
        if features.kernel_expiry {
            dataplane.start_expiry()?;
        }
        let flow_log =
            FlowLogWriter::start(config.flow_log.as_deref(), &dataplane.maps, cluster.index)?;
        // Last, so that the first packet finds every rule.
        let attachment = dataplane
            .attach(&cluster, &egress, config.attach_mode)
            .map_err(Box::new)?;
        stale.remove();
        if !matches!(earlier, EarlierDataplane::None) && attachment.mode == AttachMode::Tcx {
            // The earlier process may have attached with clsact. Programs on tcx run first, so those no longer see
            // packets.
            Instance::detach_leftover(&interfaces, &cluster, &egress).await?;
        }
        match earlier {
            EarlierDataplane::None => {}
            EarlierDataplane::Replaced(replaced) => replaced.clear_identity(),
            EarlierDataplane::TakenOver(_) => {
                log::info!(
                    "took over the dataplane of an earlier process, with its flows and counters"
                );
            }
        }
        let mut next_hops = NextHops::default();
        // The next hops of an earlier process are outdated.
        next_hops.reset(&mut dataplane.maps)?;
        let events = Events::listen(&mut dataplane)?;
        for line in summary(&table) {
            log::info!("{line}");
        }
        unfinished.finish();
        Ok(Self {
            config,
            resource,
            table,
            spec_file,
            started: SystemTime::now(),
            reloads: Reloads::new(SystemTime::now()),
            interfaces,
            cluster,
            egress,
            dataplane: Box::new(dataplane),
            attachment,
            next_hops,
            flow_log,
            queries,
            events,
            _lock: lock,
        })
    }
}

fn unreadable(what: &'static str) -> impl FnOnce(std::io::Error) -> StartError {
    move |source| StartError::Unreadable { what, source }
}

/// Locks both interfaces against other routers.
fn lock(cluster: &Interface, egress: &Interface) -> Result<InstanceLock, StartError> {
    let ifindex = match InstanceLock::acquire([cluster.index, egress.index]) {
        Ok(lock) => return Ok(lock),
        Err(LockError::Held { ifindex }) => ifindex,
        Err(LockError::Io(error)) => return Err(error.into()),
    };
    let holds_lock = |other: &Instance| {
        let identity = other.info.identity;
        [identity.cluster_ifindex, identity.egress_ifindex].contains(&ifindex)
    };
    let pid = dataplane::discover()
        .ok()
        .and_then(|instances| instances.into_iter().find(holds_lock))
        .map(|instance| instance.info.identity.pid);
    let interface = [cluster, egress]
        .into_iter()
        .find(|interface| interface.index == ifindex)
        .map_or_else(|| ifindex.to_string(), |interface| interface.name.clone());
    Err(StartError::AlreadyRunning { pid, interface })
}

/// With IP forwarding the kernel bypasses the rules: a host on the external network could reach the cluster.
fn warn_about_forwarding() {
    if kernel::ip_forward().unwrap_or(false) {
        log::warn!(
            "net.ipv4.ip_forward is 1: the kernel forwards packets that bypass the rules; \
             the router does not need it, set it to 0"
        );
    }
}

fn options(
    config: &RouterConfig,
    table: &RuleTable,
    features: Features,
    pair: InterfacePair,
) -> Options {
    // A family without a reserved address has no flows and needs no memory for them.
    let max_flows = |used: bool| if used { config.max_flows } else { 1 };
    // One more for the fallback.
    let rules = table.rules.len() + 1;
    let rules = u32::try_from(rules)
        .unwrap_or(u32::MAX)
        .max(config.max_rules.unwrap_or(0));
    Options {
        cluster_ifindex: pair.cluster_ifindex,
        egress_ifindex: pair.egress_ifindex,
        max_flows_v4: max_flows(table.reserved_v4.is_some()),
        max_flows_v6: max_flows(table.reserved_v6.is_some()),
        max_rules: rules.next_power_of_two().max(Options::MIN_RULES),
        log_level: config.log_level,
        features,
    }
}

/// The content of the map `INSTANCE`. It continues that of a dataplane that was taken over.
fn instance(
    config: &RouterConfig,
    pair: InterfacePair,
    features: Features,
    earlier: &EarlierDataplane,
) -> InstanceInfo {
    let previous = match earlier {
        EarlierDataplane::TakenOver(instance) => **instance,
        EarlierDataplane::None | EarlierDataplane::Replaced(_) => {
            let mut instance: InstanceInfo = bytemuck::Zeroable::zeroed();
            instance.identity.started_ns = kernel::monotonic_ns();
            instance
        }
    };
    InstanceInfo {
        identity: Identity {
            layout_version: LAYOUT_VERSION,
            cluster_ifindex: pair.cluster_ifindex,
            egress_ifindex: pair.egress_ifindex,
            pid: process::id(),
            netns_inode: pair.netns_inode,
            started_ns: previous.identity.started_ns,
        },
        max_flows: config.max_flows,
        kernel_expiry: u32::from(features.kernel_expiry),
        ..previous
    }
}

fn fill(
    dataplane: &mut Dataplane,
    config: &RouterConfig,
    instance: &InstanceInfo,
    table: &RuleTable,
    [cluster, egress]: [&Interface; 2],
) -> Result<(), StartError> {
    let local_ports =
        kernel::local_port_range().map_err(unreadable("could not read the local port range"))?;
    let nat_range = NatRange::without(local_ports);
    if nat_range.is_empty() {
        return Err(StartError::NoNatPort);
    }
    let maps = &mut dataplane.maps;
    maps.set_addresses(Side::Cluster, &cluster.addresses)?;
    maps.set_addresses(Side::Egress, &egress.addresses)?;
    maps.set_config(&Config {
        nat_range,
        cluster_mtu: cluster.mtu,
        egress_mtu: egress.mtu,
        timeouts: config.timeouts,
        // Keeps the rules of an earlier process in force until the new ones replace them.
        ..maps.config()?
    })?;
    maps.set_instance(instance)?;
    maps.apply_rules(table)?;
    let mut instance = *instance;
    instance.reloads.applied_ns = kernel::monotonic_ns();
    instance.reloads.refused_ns = 0;
    maps.set_instance(&instance)?;
    Ok(())
}

/// A log line for each rule, and one for each fallback.
fn summary(table: &RuleTable) -> Vec<String> {
    let from = |address: IpAddr| {
        let reserved = table.reserved(Family::of(address));
        reserved.map_or_else(|| "nowhere".to_owned(), |address| address.to_string())
    };
    let rules = table.rules.iter().enumerate().map(|(id, rule)| {
        let server = SocketAddr::new(rule.destination, rule.target_port.get());
        format!(
            "rule {id}: {}/{} → {server} from {}",
            rule.port,
            rule.protocol,
            from(rule.destination)
        )
    });
    let fallbacks = table.fallbacks().map(|address| {
        format!(
            "fallback: every other port → {address} from {}",
            from(address)
        )
    });
    rules.chain(fallbacks).collect()
}
