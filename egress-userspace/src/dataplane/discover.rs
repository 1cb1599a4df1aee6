//! Finds the routers of this network namespace, through the kernel's list of programs or through pins. The map
//! `INSTANCE` tells which network namespace a dataplane belongs to.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use aya::{
    maps::{Map, MapData, MapError, MapInfo},
    programs::{ProgramError, SchedClassifier, TcAttachType, loaded_programs, tc::TcError},
};
use egress_common::{Config, Identity, InstanceInfo};
use thiserror::Error;

use super::{
    attach::{AttachMode, detach_leftover, drop_empty_clsact},
    instance_lock::InstanceLock,
    maps::Maps,
    maps_error::MapsError,
    pins::{self, IDENTITY_MAPS, Pins},
    programs::PROGRAMS,
};
use crate::net::{
    interface::{Interface, Interfaces},
    kernel,
};

/// Why no router was found, or why it cannot be inspected.
#[derive(Debug, Error)]
pub enum DiscoverError {
    /// There is no router.
    #[error(
        "no egress router runs in this network namespace; start one with `egress-router run --config FILE`"
    )]
    None,
    /// There are several routers.
    #[error(
        "{0} egress routers run in this network namespace; select one with --cluster-interface"
    )]
    Several(usize),
    /// The process may not list the kernel's BPF programs.
    #[error(
        "cannot list the kernel's BPF programs, which requires root or CAP_SYS_ADMIN, and no router of this network \
         namespace is pinned under {directory}: {0}",
        directory = Pins::DEFAULT
    )]
    List(#[source] ProgramError),
    /// The directory contains no dataplane.
    #[error("no router is pinned in {}", .0.display())]
    NotPinned(PathBuf),
    /// The process may not open the pins.
    #[error(
        "cannot open the pins in {}, which requires their owner and CAP_BPF: {source}",
        .directory.display()
    )]
    Closed {
        /// The directory of the pins.
        directory: PathBuf,
        /// The kernel's error.
        source: io::Error,
    },
    /// The pinned dataplane belongs to another network namespace.
    #[error(
        "the router that is pinned in {} belongs to another network namespace (inode {netns_inode}): run this command \
         there, with nsenter --net",
        .directory.display()
    )]
    Elsewhere {
        /// The directory of the pins.
        directory: PathBuf,
        /// The inode of its network namespace.
        netns_inode: u64,
    },
    /// The network namespace of this process cannot be identified.
    #[error("could not identify the network namespace: {0}")]
    Namespace(#[from] io::Error),
    /// The maps of a router cannot be used.
    #[error(transparent)]
    Maps(#[from] MapsError),
}

/// A router in this network namespace.
pub struct Instance {
    /// The identity, and what the process stores with it.
    pub info: InstanceInfo,
    /// The settings.
    pub config: Config,
    /// The maps.
    pub maps: Maps,
    /// The pins, if the instance was found through them.
    pins: Option<Pins>,
}

/// All routers in this network namespace.
///
/// # Errors
///
/// If the process may not list programs, or a router has another layout version.
pub fn discover() -> Result<Vec<Instance>, DiscoverError> {
    discover_matching(|_| true)
}

/// The routers in this network namespace whose identity is `wanted`.
fn discover_matching(wanted: impl Fn(&Identity) -> bool) -> Result<Vec<Instance>, DiscoverError> {
    let netns_inode = kernel::netns_inode()?;
    let mut found: Vec<(Identity, Vec<MapInfo>)> = Vec::new();
    let mut known = BTreeSet::new();
    for program in loaded_programs() {
        let program = match program {
            Ok(program) => program,
            // The program was freed after it was listed.
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == io::ErrorKind::NotFound =>
            {
                continue;
            }
            Err(error) => return Err(DiscoverError::List(error)),
        };
        if program.name_as_str() != Some(PROGRAMS[0]) {
            continue;
        }
        let Ok(Some(map_ids)) = program.map_ids() else {
            continue;
        };
        let infos: Vec<MapInfo> = map_ids
            .iter()
            .filter_map(|id| MapInfo::from_id(*id).ok())
            .collect();
        // A foreign program may have the same name, but not these maps.
        let info = IDENTITY_MAPS
            .into_iter()
            .find_map(|name| find_map_info(&infos, name));
        let Some((map_id, map)) =
            info.and_then(|info| Some((info.id(), MapData::from_id(info.id()).ok()?)))
        else {
            continue;
        };
        let Ok(identity) = pins::identity(&map) else {
            continue;
        };
        // During a takeover two programs use the same maps.
        let is_here = identity.netns_inode == netns_inode && wanted(&identity);
        if is_here && known.insert(map_id) {
            found.push((identity, infos));
        }
    }
    // The kernel frees a program some time after it was replaced.
    let is_newest = |identity: &Identity| {
        let same = found
            .iter()
            .filter(|(other, _)| other.cluster_ifindex == identity.cluster_ifindex);
        same.map(|(other, _)| other.started_ns).max() == Some(identity.started_ns)
    };
    let found = found.iter().filter(|(identity, _)| is_newest(identity));
    found
        .filter_map(|(identity, infos)| {
            if let Err(error) = pins::check_version(identity) {
                return Some(Err(error.into()));
            }
            let maps = Maps::from_source(|name| {
                let info = find_map_info(infos, name)?;
                Some(MapData::from_id(info.id()).and_then(Map::from_map_data))
            });
            // The kernel may have freed them since the program was listed.
            Some(Instance::new(maps.ok()?, None).map_err(DiscoverError::from))
        })
        .collect()
}

/// The map with this name. The kernel stores the first 15 characters of a name.
fn find_map_info<'i>(infos: &'i [MapInfo], name: &str) -> Option<&'i MapInfo> {
    let kept = &name[..name.len().min(15)];
    infos.iter().find(|info| info.name_as_str() == Some(kept))
}

/// The dataplanes of any version of this network namespace that are pinned in directories under `parent`. Leaves out
/// those that the process may not open.
pub fn pinned_under(parent: &Path) -> Vec<(Pins, Identity)> {
    let (Ok(entries), Ok(netns_inode)) = (fs::read_dir(parent), kernel::netns_inode()) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let pins = Pins::existing(&entry.path());
            let identity = pins.identity().ok()?;
            (identity.netns_inode == netns_inode).then_some((pins, identity))
        })
        .collect()
}

/// The routers of this network namespace that are `wanted` and pinned in directories under `parent`, as far as they may
/// be opened.
fn discover_pinned(
    parent: &Path,
    wanted: impl Fn(&Identity) -> bool,
) -> Result<Vec<Instance>, DiscoverError> {
    pinned_under(parent)
        .into_iter()
        .filter(|(_, identity)| wanted(identity))
        .map(|(pins, identity)| {
            pins.check(&identity)?;
            Ok(Instance::new(pins.maps()?, Some(pins))?)
        })
        .collect()
}

impl Instance {
    fn new(maps: Maps, pins: Option<Pins>) -> Result<Self, MapsError> {
        Ok(Self {
            info: maps.instance()?,
            config: maps.config()?,
            maps,
            pins,
        })
    }

    /// The only router in this network namespace, or the one whose cluster interface has this index. Without the
    /// privilege to list the kernel's programs, the search is limited to pins in the default directory.
    ///
    /// # Errors
    ///
    /// If there is none, or there are several.
    pub fn only(cluster_ifindex: Option<u32>) -> Result<Self, DiscoverError> {
        let is_wanted = |identity: &Identity| {
            cluster_ifindex.is_none_or(|index| index == identity.cluster_ifindex)
        };
        let mut instances = match discover_matching(is_wanted) {
            // Programs come first, as pins may be outdated: the router may have been restarted without pinning.
            Err(error @ DiscoverError::List(_)) => {
                let instances = discover_pinned(Path::new(Pins::DEFAULT), is_wanted)?;
                if instances.is_empty() {
                    return Err(error);
                }
                instances
            }
            result => result?,
        };
        instances.retain(|instance| is_wanted(&instance.info.identity));
        match (instances.pop(), instances.len()) {
            (None, _) => Err(DiscoverError::None),
            (Some(instance), 0) => Ok(instance),
            (Some(_), others) => Err(DiscoverError::Several(others + 1)),
        }
    }

    /// The router of this network namespace that is pinned in `directory`.
    ///
    /// # Errors
    ///
    /// If there is none, or the process may not open it.
    pub fn pinned(directory: &Path) -> Result<Self, DiscoverError> {
        let pins = Pins::existing(directory);
        let identity = pins.identity().map_err(|error| match error {
            MapsError::Map { source, .. } => match system_error(source) {
                Ok(source) if source.kind() == io::ErrorKind::NotFound => {
                    DiscoverError::NotPinned(directory.to_owned())
                }
                Ok(source) => DiscoverError::Closed {
                    directory: directory.to_owned(),
                    source,
                },
                Err(_) => MapsError::Unidentified.into(),
            },
            error => error.into(),
        })?;
        if identity.netns_inode != kernel::netns_inode()? {
            return Err(DiscoverError::Elsewhere {
                directory: directory.to_owned(),
                netns_inode: identity.netns_inode,
            });
        }
        pins.check(&identity)?;
        Ok(Self::new(pins.maps()?, Some(pins))?)
    }

    /// The pins, if the instance was found through them.
    pub const fn pins(&self) -> Option<&Pins> {
        self.pins.as_ref()
    }

    /// Whether a router process owns the dataplane now.
    pub fn is_running(&self) -> bool {
        InstanceLock::is_held(self.info.identity.cluster_ifindex)
    }

    /// How the programs are attached. A program that is not attached with tcx is attached with clsact.
    pub fn attach_mode(&self) -> AttachMode {
        // An instance that was found through pins may lack the privilege to list programs.
        let is_tcx = match &self.pins {
            Some(pins) => pins.link(PROGRAMS[0]).exists(),
            None => is_on_tcx(PROGRAMS[0], self.info.identity.cluster_ifindex),
        };
        if is_tcx {
            AttachMode::Tcx
        } else {
            AttachMode::Clsact
        }
    }

    /// Detaches the clsact programs of a killed router from these interfaces. Returns whether there were any.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub async fn detach_leftover(
        interfaces: &Interfaces,
        cluster: &Interface,
        egress: &Interface,
    ) -> Result<bool, TcError> {
        let mut found = false;
        for (program, interface) in PROGRAMS.into_iter().zip([cluster, egress]) {
            found |= detach_leftover(program, &interface.name)?;
            drop_empty_clsact(interfaces, interface.index).await;
        }
        Ok(found)
    }
}

/// The first of the interfaces that has a router's program on tcx, as far as the process may read the programs' names.
pub fn attached_by_tcx<'i>(cluster: &'i Interface, egress: &'i Interface) -> Option<&'i Interface> {
    PROGRAMS
        .into_iter()
        .zip([cluster, egress])
        .find(|(program, interface)| is_on_tcx(program, interface.index))
        .map(|(_, interface)| interface)
}

/// Whether a program with this name is attached to the tcx hook of the interface with this index.
fn is_on_tcx(program: &str, ifindex: u32) -> bool {
    nix::net::if_::if_indextoname(ifindex)
        .ok()
        .and_then(|name| {
            SchedClassifier::query_tcx(name.to_str().ok()?, TcAttachType::Ingress).ok()
        })
        .is_some_and(|(_, programs)| {
            programs
                .iter()
                .any(|info| info.name_as_str() == Some(program))
        })
}

/// The system error behind a failure to open a map; `Err` for any other failure.
fn system_error(error: MapError) -> Result<io::Error, MapError> {
    match error {
        MapError::SyscallError(error) => Ok(error.io_error),
        MapError::IoError(error) if error.raw_os_error().is_some() => Ok(error),
        error => Err(error),
    }
}
