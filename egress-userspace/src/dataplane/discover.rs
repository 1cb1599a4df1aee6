//! Finding the router that runs in this network namespace: by its programs, which the kernel lists, or by where its
//! dataplane is pinned, and by what its map `INSTANCE` says of the namespace.

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

/// Why no router could be found or looked into.
#[derive(Debug, Error)]
pub enum DiscoverError {
    /// There is none.
    #[error(
        "no egress router runs in this network namespace; start one with `egress-router run --config FILE`"
    )]
    None,
    /// There are several.
    #[error("{0} egress routers run in this network namespace; say which with --cluster-interface")]
    Several(usize),
    /// The kernel does not let us look.
    #[error(
        "may not list the kernel's BPF programs, which takes root or CAP_SYS_ADMIN, and finds no router of this network \
         namespace that is pinned under {directory}: {0}",
        directory = Pins::DEFAULT
    )]
    List(#[source] ProgramError),
    /// Nothing is pinned where it was to be.
    #[error("no router is pinned in {}", .0.display())]
    NotPinned(PathBuf),
    /// What is pinned there may not be opened.
    #[error("may not open what is pinned in {}, which takes its owner and CAP_BPF: {source}", .directory.display())]
    Closed {
        /// Where it is.
        directory: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What is pinned there is not of this network namespace.
    #[error(
        "the router that is pinned in {} is of another network namespace (inode {netns_inode}): run this there, as \
         nsenter --net does",
        .directory.display()
    )]
    Elsewhere {
        /// Where it is.
        directory: PathBuf,
        /// The inode of its network namespace.
        netns_inode: u64,
    },
    /// The namespace cannot be told.
    #[error("could not tell which network namespace this is: {0}")]
    Namespace(#[from] io::Error),
    /// Its maps are not as expected.
    #[error(transparent)]
    Maps(#[from] MapsError),
}

/// A router in this network namespace.
pub struct Instance {
    /// Whose it is, and what its process keeps there.
    pub info: InstanceInfo,
    /// Its settings.
    pub config: Config,
    /// Its maps.
    pub maps: Maps,
    /// Where they were found pinned.
    pins: Option<Pins>,
}

/// All routers in this network namespace.
///
/// # Errors
///
/// If the kernel does not let us look, or one of them is of another version.
pub fn discover() -> Result<Vec<Instance>, DiscoverError> {
    discover_those(|_| true)
}

/// The routers in this network namespace that are `wanted`.
fn discover_those(wanted: impl Fn(&Identity) -> bool) -> Result<Vec<Instance>, DiscoverError> {
    let netns_inode = kernel::netns_inode()?;
    let mut found: Vec<(Identity, Vec<MapInfo>)> = Vec::new();
    let mut known = BTreeSet::new();
    for program in loaded_programs() {
        let program = match program {
            Ok(program) => program,
            // Gone between being listed and being opened.
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
        // Another program of that name is none of ours.
        let own = IDENTITY_MAPS
            .into_iter()
            .find_map(|name| named_so(&infos, name));
        let Some((own, map)) = own.and_then(|own| Some((own, MapData::from_id(own.id()).ok()?)))
        else {
            continue;
        };
        let Ok(identity) = pins::identity(&map) else {
            continue;
        };
        // While one takes over from another, two programs have the same maps.
        let is_here = identity.netns_inode == netns_inode && wanted(&identity);
        if is_here && known.insert(own.id()) {
            found.push((identity, infos));
        }
    }
    // The kernel frees a program a while after it was replaced.
    let newest = |identity: &Identity| {
        let same = found
            .iter()
            .filter(|(other, _)| other.cluster_ifindex == identity.cluster_ifindex);
        same.map(|(other, _)| other.started_ns).max() == Some(identity.started_ns)
    };
    let found = found.iter().filter(|(identity, _)| newest(identity));
    found
        .filter_map(|(identity, infos)| {
            if let Err(error) = pins::check_version(identity) {
                return Some(Err(error.into()));
            }
            let maps = Maps::from_source(|name| {
                let info = named_so(infos, name)?;
                Some(MapData::from_id(info.id()).and_then(Map::from_map_data))
            });
            // The kernel may have freed them since the program was listed.
            Some(Instance::new(maps.ok()?, None).map_err(DiscoverError::from))
        })
        .collect()
}

/// The map with this name, of which the kernel keeps the first 15 characters.
fn named_so<'i>(infos: &'i [MapInfo], name: &str) -> Option<&'i MapInfo> {
    let kept = &name[..name.len().min(15)];
    infos.iter().find(|info| info.name_as_str() == Some(kept))
}

/// What is pinned of this network namespace in directories under `parent`, of whatever version, as far as it may be opened.
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

/// The routers of this network namespace that are `wanted` and pinned in directories under `parent`, as far as they may be
/// opened.
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

    /// The one router in this network namespace, or the one whose cluster interface has this index. Without the privilege
    /// to list the kernel's programs, the one that is pinned by default.
    ///
    /// # Errors
    ///
    /// If there is none, or there are several to choose from.
    pub fn only(cluster_ifindex: Option<u32>) -> Result<Self, DiscoverError> {
        let is_wanted = |identity: &Identity| {
            cluster_ifindex.is_none_or(|index| index == identity.cluster_ifindex)
        };
        let mut instances = match discover_those(is_wanted) {
            // Programs come first, as they are what runs: pins may be those of a router that was started without since.
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

    /// The router whose dataplane is pinned in `directory`, if it is of this network namespace.
    ///
    /// # Errors
    ///
    /// If there is none, or it may not be opened.
    pub fn pinned(directory: &Path) -> Result<Self, DiscoverError> {
        let pins = Pins::existing(directory);
        let identity = pins.identity().map_err(|error| match error {
            MapsError::Map { source, .. } => match refusal(source) {
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

    /// Where it was found pinned.
    pub const fn pins(&self) -> Option<&Pins> {
        self.pins.as_ref()
    }

    /// Whether the process that started it is still there.
    pub fn is_running(&self) -> bool {
        InstanceLock::is_held(self.info.identity.cluster_ifindex)
    }

    /// How its programs are attached. A program that is loaded, but in no TCX list, hangs on a clsact qdisc.
    pub fn attach_mode(&self) -> AttachMode {
        // Pins are asked where the kernel's list of programs is not: it takes more privileges.
        let is_by_tcx = match &self.pins {
            Some(pins) => pins.link(PROGRAMS[0]).exists(),
            None => is_on_tcx(PROGRAMS[0], self.info.identity.cluster_ifindex),
        };
        if is_by_tcx {
            AttachMode::Tcx
        } else {
            AttachMode::Clsact
        }
    }

    /// Takes the programs of a router whose process was killed off these interfaces. Whether there were any.
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

/// Which of the interfaces has a router's program by tcx, as far as the kernel lets us see its programs' names.
pub fn attached_by_tcx<'i>(cluster: &'i Interface, egress: &'i Interface) -> Option<&'i Interface> {
    PROGRAMS
        .into_iter()
        .zip([cluster, egress])
        .find(|(program, interface)| is_on_tcx(program, interface.index))
        .map(|(_, interface)| interface)
}

/// Whether a program of this name is in the TCX list of the interface with this index.
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

/// What the kernel said when it refused to open a map; else the error.
fn refusal(error: MapError) -> Result<io::Error, MapError> {
    match error {
        MapError::SyscallError(error) => Ok(error.io_error),
        MapError::IoError(error) if error.raw_os_error().is_some() => Ok(error),
        error => Err(error),
    }
}
