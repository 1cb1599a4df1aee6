//! The start of a router, from the checks to the attached programs.

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
    take_over::{self, Earlier, Unfinished},
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
    /// Checks the interfaces, takes over or removes the dataplane of an earlier router, and attaches.
    ///
    /// The calling thread has to be in the network namespace of the router's pod, and within a tokio runtime of the
    /// current thread.
    ///
    /// # Errors
    ///
    /// The first obstacle. Then nothing new is attached.
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
                .map_err(unreadable("could not tell which network namespace this is"))?,
            cluster_ifindex: cluster.index,
            egress_ifindex: egress.index,
        };
        let pins = take_over::pins(&config, &resource)?;
        let earlier = match &pins {
            Some(pins) => take_over::take_over(pins, pair)?,
            None => Earlier::Nothing,
        };
        let stale = StaleDataplanes::find(pins.as_ref(), &cluster, &egress).await?;
        if matches!(earlier, Earlier::Nothing) {
            stale::remove_filters(&interfaces, &cluster, &egress).await?;
        }
        warn_of_forwarding();

        // Before anything is attached, so that an address in use changes nothing.
        let queries = metrics::start(config.metrics_address, &cluster.name, &interfaces)?;

        let features = kernel::features()?;
        let options = options(&config, &table, features, pair);
        let fresh = match &earlier {
            Earlier::Nothing => pins.as_ref(),
            Earlier::Replaced(_) | Earlier::TakenOver(_) => None,
        };
        let unfinished = Unfinished::new(fresh, pair);
        if let (Some(pins), Earlier::Replaced(_)) = (&pins, &earlier) {
            // As late as can be. Its links stay, so that its programs are there until ours replace them.
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
        if !matches!(earlier, Earlier::Nothing) && attachment.mode == AttachMode::Tcx {
            // An earlier process may have attached by clsact. Packets meet tcx first, so its filters are idle.
            Instance::detach_leftover(&interfaces, &cluster, &egress).await?;
        }
        match earlier {
            Earlier::Nothing => {}
            Earlier::Replaced(former) => former.disown(),
            Earlier::TakenOver(_) => {
                log::info!(
                    "took over the dataplane of an earlier process, with its flows and counters"
                );
            }
        }
        let mut next_hops = NextHops::default();
        // Nobody refreshes the next hops of an earlier process.
        next_hops.begin_anew(&mut dataplane.maps)?;
        let events = Events::of(&mut dataplane)?;
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

/// Locks both interfaces, which no other running router may have.
fn lock(cluster: &Interface, egress: &Interface) -> Result<InstanceLock, StartError> {
    let ifindex = match InstanceLock::acquire([cluster.index, egress.index]) {
        Ok(lock) => return Ok(lock),
        Err(LockError::Held { ifindex }) => ifindex,
        Err(LockError::Io(error)) => return Err(error.into()),
    };
    let has_it = |other: &Instance| {
        let identity = other.info.identity;
        [identity.cluster_ifindex, identity.egress_ifindex].contains(&ifindex)
    };
    let pid = dataplane::discover()
        .ok()
        .and_then(|instances| instances.into_iter().find(has_it))
        .map(|instance| instance.info.identity.pid);
    let interface = [cluster, egress]
        .into_iter()
        .find(|interface| interface.index == ifindex)
        .map_or_else(|| ifindex.to_string(), |interface| interface.name.clone());
    Err(StartError::AlreadyRunning { pid, interface })
}

/// The kernel would forward packets past the rules: a host on the external network could reach the cluster.
fn warn_of_forwarding() {
    if kernel::ip_forward().unwrap_or(false) {
        log::warn!(
            "net.ipv4.ip_forward is 1: the kernel forwards packets beside the rules; \
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
    // A family without a reserved address has no flows, and gets no memory for any.
    let max_flows = |used: bool| if used { config.max_flows } else { 1 };
    // One more, for the fallback.
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

/// What this process keeps in the maps, with what an earlier one did.
fn instance(
    config: &RouterConfig,
    pair: InterfacePair,
    features: Features,
    earlier: &Earlier,
) -> InstanceInfo {
    let before = match earlier {
        Earlier::TakenOver(instance) => **instance,
        Earlier::Nothing | Earlier::Replaced(_) => {
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
            started_ns: before.identity.started_ns,
        },
        max_flows: config.max_flows,
        kernel_expiry: u32::from(features.kernel_expiry),
        ..before
    }
}

/// Fills the maps.
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
        // The rules in force are those of an earlier process, or none.
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

/// One line for each rule, and one for the fallback.
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
