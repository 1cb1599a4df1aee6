//! Starting: what is checked, what is taken over from an earlier router, and what is loaded, filled and attached.

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process,
};

use anyhow::Context as _;
use egress_api::{EgressRouter, Family, RuleTable};
use egress_common::{Config, Identity, InstanceInfo, LAYOUT_VERSION, NatRange, Side};
use log::LevelFilter;
use thiserror::Error;

use super::{
    Args,
    leftover::{self, Leftover},
    reserved,
};
use crate::cli::{flow_log::Recorder, timeout};
use crate::{
    dataplane::{
        self, AttachMode, Attachment, Dataplane, Former, Instance, Left, Options, Pins, PinsError,
        Place, Presence, Taken,
    },
    net::{
        interface::{self, Interface, Interfaces},
        kernel::{self, Features},
        privileges,
    },
    telemetry::metrics::{self, Queries},
};

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

/// A router that is attached.
pub struct Started {
    pub _presence: Presence,
    pub cluster: Interface,
    pub egress: Interface,
    pub dataplane: Dataplane,
    pub attachment: Attachment,
    pub recorder: Recorder,
    pub queries: Queries,
}

/// Checks what is there, takes over or cleans up what an earlier router has left, and brings the dataplane up.
pub async fn start(
    args: &Args,
    router: &EgressRouter,
    level: LevelFilter,
    interfaces: &Interfaces,
) -> anyhow::Result<Started> {
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
    let presence = claim(&cluster, &egress)?;
    let place = Place {
        netns_inode: kernel::netns_inode()
            .context("could not tell which network namespace this is")?,
        cluster_ifindex: cluster.index,
        egress_ifindex: egress.index,
    };
    let pins = pins(args, router)?;
    let earlier = match &pins {
        Some(pins) => take_over(pins, place)?,
        None => Earlier::Nothing,
    };
    let leftover = Leftover::find(pins.as_ref(), &cluster, &egress).await?;
    if matches!(earlier, Earlier::Nothing) {
        leftover::replace_filters(interfaces, &cluster, &egress).await?;
    }
    warn_of_forwarding();

    // Before anything is attached, so that an address that is taken changes nothing.
    let queries = metrics::start(args.metrics_address, &cluster.name, interfaces)?;

    let features = kernel::features()?;
    let options = options(args, router, level, features, place);
    let mut dataplane = match &pins {
        Some(pins) => Dataplane::load_pinned(&options, pins)?,
        None => Dataplane::load(&options)?,
    };
    let instance = instance(args, place, features, &earlier);
    fill(&mut dataplane, args, &instance, router, [&cluster, &egress])?;
    if features.kernel_expiry {
        dataplane.start_expiry()?;
    }
    let recorder = Recorder::start(args.flow_log.as_deref(), &dataplane.maps, cluster.index)?;
    // Last, when all is in place: the first packet finds every rule.
    let attachment = dataplane.attach(&cluster, &egress, args.attach.wish())?;
    leftover.remove();
    if !matches!(earlier, Earlier::Nothing) && attachment.mode == AttachMode::Tcx {
        // Of a process before that attached by clsact. Ours come first, so these have nothing to do any more.
        Instance::detach_leftover(interfaces, &cluster, &egress).await?;
    }
    // The gateway is asked for by CAP_NET_ADMIN.
    let is_asked = args.metrics_address.is_some();
    privileges::drop_all_but_needed(attachment.mode == AttachMode::Clsact || is_asked)?;
    match earlier {
        Earlier::Nothing => {}
        Earlier::Replaced(former) => former.disown(),
        Earlier::TakenOver(_) => {
            log::info!(
                "took over the dataplane of an earlier process, with its flows and counters"
            );
        }
    }
    Ok(Started {
        _presence: presence,
        cluster,
        egress,
        dataplane,
        attachment,
        recorder,
        queries,
    })
}

/// Where the dataplane is to be kept, if anywhere.
fn pins(args: &Args, router: &EgressRouter) -> anyhow::Result<Option<Pins>> {
    if args.no_pin {
        return Ok(None);
    }
    if let Some(directory) = &args.pin_path {
        return Ok(Some(Pins::at(directory)?));
    }
    match Pins::at(&default_pin_path(router)) {
        Ok(pins) => Ok(Some(pins)),
        Err(error) if args.keep => Err(error).context("--keep needs a place for the dataplane"),
        Err(error @ (PinsError::NotBpf(_) | PinsError::Io { .. })) => {
            log::warn!("the dataplane will end with this process: {error}");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// By the name of the resource. The BPF file system keeps names with a dot for itself.
fn default_pin_path(router: &EgressRouter) -> PathBuf {
    let name = router.metadata.name.as_str().replace('.', "_");
    Path::new(Pins::DEFAULT).join(name)
}

/// What becomes of the dataplane that an earlier router has left.
enum Earlier {
    /// There is none.
    Nothing,
    /// Its programs stay attached until ours replace them; its maps are not used.
    Replaced(Former),
    /// Its maps are used, and this is what its process kept there.
    TakenOver(Box<InstanceInfo>),
}

/// Looks at what an earlier router has left, and clears away what cannot be taken over.
fn take_over(pins: &Pins, place: Place) -> anyhow::Result<Earlier> {
    let directory = pins.directory().display();
    match pins.left(place)? {
        Left::Nothing => Ok(Earlier::Nothing),
        Left::Dataplane(instance) => Ok(Earlier::TakenOver(instance)),
        Left::Unusable { reason, flows } => {
            let flows = match flows {
                Some(1) => "its 1 flow ends".to_owned(),
                Some(flows) => format!("its {flows} flows end"),
                None => "its flows end".to_owned(),
            };
            log::warn!(
                "the dataplane in {directory} is replaced, {flows}, and all counters begin at 0: {reason}"
            );
            // Its links stay, so that its programs are there until ours replace them.
            let former = pins.former(place);
            pins.remove_all_maps()?;
            Ok(Earlier::Replaced(former))
        }
        Left::Foreign(reason) => {
            log::warn!("what is in {directory} is not for this router and is removed: {reason}");
            pins.remove()?;
            Pins::at(pins.directory())?;
            Ok(Earlier::Nothing)
        }
    }
}

/// Claims both interfaces, which no other running router may have.
fn claim(cluster: &Interface, egress: &Interface) -> anyhow::Result<Presence> {
    let Taken { ifindex } = match Presence::claim([cluster.index, egress.index])? {
        Ok(presence) => return Ok(presence),
        Err(taken) => taken,
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
    Err(AlreadyRunning { pid, interface }.into())
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

fn options(
    args: &Args,
    router: &EgressRouter,
    level: LevelFilter,
    features: Features,
    place: Place,
) -> Options {
    // A family without a reserved address has no flows, and gets no memory for any.
    let max_flows = |used: bool| if used { args.max_flows } else { 1 };
    // One more, for the fallback.
    let table = RuleTable::from(router);
    let rules = table.rules.len() + 1;
    let rules = u32::try_from(rules)
        .unwrap_or(u32::MAX)
        .max(args.max_rules.unwrap_or(0));
    Options {
        cluster_ifindex: place.cluster_ifindex,
        egress_ifindex: place.egress_ifindex,
        max_flows_v4: max_flows(table.reserved_v4.is_some()),
        max_flows_v6: max_flows(table.reserved_v6.is_some()),
        max_rules: rules.next_power_of_two().max(Options::MIN_RULES),
        log_level: level,
        features,
    }
}

/// What this process keeps in the maps, with what an earlier one did.
fn instance(args: &Args, place: Place, features: Features, earlier: &Earlier) -> InstanceInfo {
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
            cluster_ifindex: place.cluster_ifindex,
            egress_ifindex: place.egress_ifindex,
            pid: process::id(),
            netns_inode: place.netns_inode,
            started_ns: before.identity.started_ns,
        },
        max_flows: args.max_flows,
        kernel_expiry: u32::from(features.kernel_expiry),
        ..before
    }
}

/// Fills the maps.
fn fill(
    dataplane: &mut Dataplane,
    args: &Args,
    instance: &InstanceInfo,
    router: &EgressRouter,
    [cluster, egress]: [&Interface; 2],
) -> anyhow::Result<()> {
    let nat_range = NatRange::without(
        kernel::local_port_range().context("could not read the local port range")?,
    );
    anyhow::ensure!(
        !nat_range.is_empty(),
        "net.ipv4.ip_local_port_range covers every port: none is left for flows; make it smaller"
    );
    let maps = &mut dataplane.maps;
    maps.set_addresses(Side::Cluster, &cluster.addresses)?;
    maps.set_addresses(Side::Egress, &egress.addresses)?;
    maps.set_config(&Config {
        nat_range,
        cluster_mtu: cluster.mtu,
        egress_mtu: egress.mtu,
        timeouts: timeout::apply(&args.timeouts),
        // The rules in force are those of an earlier process, or none.
        ..maps.config()?
    })?;
    maps.set_instance(instance)?;
    maps.apply_rules(&RuleTable::from(router))?;
    let mut instance = *instance;
    instance.reloads.applied_ns = kernel::monotonic_ns();
    instance.reloads.refused_ns = 0;
    maps.set_instance(&instance)?;
    Ok(())
}

/// One line for each rule, and one for the fallback.
pub fn summary(router: &EgressRouter) -> Vec<String> {
    let table = RuleTable::from(router);
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
