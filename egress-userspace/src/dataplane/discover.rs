//! Finding the router that runs in this network namespace: by its programs, which the kernel lists, and by what its
//! `CONFIG` says of the namespace.

use std::collections::BTreeSet;

use aya::{
    maps::{Map, MapData, MapInfo},
    programs::{ProgramError, SchedClassifier, TcAttachType, loaded_programs, tc::TcError},
};
use egress_common::{Config, LAYOUT_VERSION};
use thiserror::Error;

use super::{
    attach::{AttachMode, detach_leftover, drop_empty_clsact},
    load::PROGRAMS,
    maps::{Maps, MapsError},
    presence::Presence,
};
use crate::{
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
    #[error("may not list the kernel's BPF programs, which takes root or CAP_SYS_ADMIN: {0}")]
    List(#[source] ProgramError),
    /// The namespace cannot be told.
    #[error("could not tell which network namespace this is: {0}")]
    Namespace(#[from] std::io::Error),
    /// Its maps are not as expected.
    #[error(transparent)]
    Maps(#[from] MapsError),
}

/// A router in this network namespace.
pub struct Instance {
    /// What it was started with.
    pub config: Config,
    /// Its maps.
    pub maps: Maps,
}

/// All routers in this network namespace.
///
/// # Errors
///
/// If the kernel does not let us look.
pub fn discover() -> Result<Vec<Instance>, DiscoverError> {
    let netns_inode = kernel::netns_inode()?;
    let mut instances = Vec::new();
    let mut known = BTreeSet::new();
    for program in loaded_programs() {
        let program = match program {
            Ok(program) => program,
            // Gone between being listed and being opened.
            Err(ProgramError::SyscallError(error))
                if error.io_error.kind() == std::io::ErrorKind::NotFound =>
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
        let maps = Maps::from_source(|name| {
            // The kernel keeps the first 15 characters of a name.
            let kept = &name[..name.len().min(15)];
            let info = infos.iter().find(|info| info.name_as_str() == Some(kept))?;
            Some(MapData::from_id(info.id()).and_then(Map::from_map_data))
        });
        // While one takes over from another, two programs have the same maps.
        let settings = infos
            .iter()
            .find(|info| info.name_as_str() == Some("CONFIG"));
        if !settings.is_none_or(|info| known.insert(info.id())) {
            continue;
        }
        // Another program of that name is none of ours.
        let Ok(maps) = maps else { continue };
        let config = maps.config()?;
        if config.netns_inode != netns_inode {
            continue;
        }
        if config.layout_version != LAYOUT_VERSION {
            return Err(MapsError::Version {
                found: config.layout_version,
                known: LAYOUT_VERSION,
            }
            .into());
        }
        instances.push(Instance { config, maps });
    }
    Ok(instances)
}

impl Instance {
    /// The one router in this network namespace, or the one whose cluster interface has this index.
    ///
    /// # Errors
    ///
    /// If there is none, or there are several to choose from.
    pub fn only(cluster_ifindex: Option<u32>) -> Result<Self, DiscoverError> {
        let mut instances = discover()?;
        if let Some(index) = cluster_ifindex {
            instances.retain(|instance| instance.config.cluster_ifindex == index);
        }
        match (instances.pop(), instances.len()) {
            (None, _) => Err(DiscoverError::None),
            (Some(instance), 0) => Ok(instance),
            (Some(_), others) => Err(DiscoverError::Several(others + 1)),
        }
    }

    /// Whether the process that started it is still there.
    pub fn is_running(&self) -> bool {
        Presence::is_claimed(self.config.cluster_ifindex)
    }

    /// How its programs are attached. A program that is loaded, but in no TCX list, hangs on a clsact qdisc.
    pub fn attach_mode(&self) -> AttachMode {
        let by_tcx = nix::net::if_::if_indextoname(self.config.cluster_ifindex)
            .ok()
            .and_then(|name| {
                SchedClassifier::query_tcx(name.to_str().ok()?, TcAttachType::Ingress).ok()
            })
            .is_some_and(|(_, programs)| {
                programs
                    .iter()
                    .any(|program| program.name_as_str() == Some(PROGRAMS[0]))
            });
        if by_tcx {
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
