//! The pins of a dataplane in the BPF file system: its maps and, with tcx, its links. They let it outlive the process.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use aya::maps::{Array, Map, MapData, MapError, MapInfo};
use egress_common::{Identity, InstanceInfo, LAYOUT_VERSION};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use thiserror::Error;

use super::{
    maps::Maps,
    maps_error::{MapsError, named},
    programs::PROGRAMS,
    raw,
};

/// A map that the router pins, as the object declares it.
pub(super) struct PinnedMap {
    pub(super) name: &'static str,
    /// A `bpf_map_type`.
    kind: u32,
    /// In bytes.
    key_size: u32,
    /// In bytes.
    value_size: u32,
}

/// The maps that make up a dataplane's state: all maps of the object except scratch memory. The build script lists
/// them.
pub(super) const MAPS: &[PinnedMap] = &include!(concat!(env!("OUT_DIR"), "/pinned_maps.rs"));

/// Maps that only earlier versions pinned. They are removed with a dataplane that is replaced.
pub const RETIRED_MAPS: [&str; 4] = ["TAPS", "TAPS_LOST", "WANTED_V4", "WANTED_V6"];

/// The map that contains the identity, and the one that contained it before layout version 7.
pub(super) const IDENTITY_MAPS: [&str; 2] = ["INSTANCE", "CONFIG"];

impl PinnedMap {
    /// Whether a map has this type and these sizes.
    fn matches(&self, info: &MapInfo) -> bool {
        let kind = info.map_type().map(|kind| kind as u32);
        kind.is_ok_and(|kind| kind == self.kind)
            && (info.key_size(), info.value_size()) == (self.key_size, self.value_size)
    }
}

/// Why the dataplane could not be pinned.
#[derive(Debug, Error)]
pub enum PinsError {
    /// There is no BPF file system.
    #[error(
        "{} is not in a BPF file system: mount one (mount -t bpf bpf /sys/fs/bpf), or run with --no-pin",
        .0.display()
    )]
    NotBpf(PathBuf),
    /// A file could not be created, read or removed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A pinned map could not be opened.
    #[error("{}: {source}", .path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: MapError,
    },
}

impl PinsError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}

/// A directory for the pinned maps and links of one dataplane.
#[derive(Clone, Debug)]
pub struct Pins {
    directory: PathBuf,
}

/// The pinned state in a directory.
#[derive(Clone, Debug)]
pub enum PinnedState {
    /// The directory is empty.
    Empty,
    /// A dataplane of the same interfaces that can be taken over.
    Usable(Box<InstanceInfo>),
    /// A dataplane of the same interfaces whose maps cannot be used.
    Unusable {
        /// The reason, for the log.
        reason: String,
        /// The number of its flows; `None` if they cannot be counted.
        flows: Option<u32>,
    },
    /// A dataplane of other interfaces, with an explanation for the log.
    Foreign(String),
}

/// A dataplane that is being replaced: those of its maps that contain its identity.
pub struct ReplacedDataplane(Vec<MapData>);

impl ReplacedDataplane {
    /// Clears its identity. The kernel frees programs some time after they were replaced. Until then, a search for
    /// routers would find this dataplane. The packet path does not read the identity.
    pub fn clear_identity(self) {
        for map in self.0 {
            let cleared = raw::only_value(&map).and_then(|mut value| {
                value[..size_of::<Identity>()].fill(0);
                raw::set_only_value(&map, &mut value)
            });
            if let Err(error) = cleared {
                log::debug!(
                    "cannot clear the identity of the dataplane that was replaced: {error}"
                );
            }
        }
    }
}

/// The two interfaces of a dataplane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfacePair {
    /// The inode of their network namespace.
    pub netns_inode: u64,
    /// The index of the cluster interface.
    pub cluster_ifindex: u32,
    /// The index of the egress interface.
    pub egress_ifindex: u32,
}

impl InterfacePair {
    const fn of(identity: &Identity) -> Self {
        Self {
            netns_inode: identity.netns_inode,
            cluster_ifindex: identity.cluster_ifindex,
            egress_ifindex: identity.egress_ifindex,
        }
    }
}

impl Pins {
    /// The default directory, which contains a directory for each router.
    pub const DEFAULT: &str = "/sys/fs/bpf/egress-router";

    /// The pins in `directory`, which is created if necessary. Only its owner has access.
    ///
    /// # Errors
    ///
    /// If the directory is not in a BPF file system, or cannot be created.
    pub fn at(directory: &Path) -> Result<Self, PinsError> {
        let existing = directory
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        let kind = statfs(existing)
            .map_err(io::Error::from)
            .map_err(PinsError::io(existing))?
            .filesystem_type();
        if kind != BPF_FS_MAGIC {
            return Err(PinsError::NotBpf(directory.to_owned()));
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(PinsError::io(directory))?;
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// The directory of the pins.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The path of a map's pin.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The path of the pin of a program's link.
    pub(super) fn link(&self, program: &str) -> PathBuf {
        self.directory.join(format!("{program}_link"))
    }

    /// The size of a pinned map in entries; `None` if it does not exist.
    pub(super) fn max_entries(&self, name: &str) -> Option<u32> {
        let info = MapInfo::from_pin(self.map(name)).ok()?;
        Some(info.max_entries())
    }

    /// The pins in `directory`, without a check that it exists.
    pub fn existing(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// Opens the pinned maps.
    ///
    /// # Errors
    ///
    /// If a map is missing or has another layout.
    pub fn maps(&self) -> Result<Maps, MapsError> {
        Maps::from_source(|name| {
            let data = MapData::from_pin(self.map(name));
            Some(data.and_then(Map::from_map_data))
        })
    }

    /// The pinned state, for a router of these interfaces.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read.
    pub fn state(&self, pair: InterfacePair) -> Result<PinnedState, PinsError> {
        let is_empty = fs::read_dir(&self.directory)
            .map_err(PinsError::io(&self.directory))?
            .next()
            .is_none();
        if is_empty {
            return Ok(PinnedState::Empty);
        }
        let unusable = |reason| PinnedState::Unusable {
            reason,
            flows: self.count_flows(),
        };
        let Ok(identity) = self.identity() else {
            return Ok(unusable("its maps have no layout version".to_owned()));
        };
        let pinned = InterfacePair::of(&identity);
        Ok(match identity.layout_version {
            0 => unusable("its maps were not filled".to_owned()),
            _ if pinned != pair => PinnedState::Foreign(format!(
                "it belongs to interfaces {} and {} in network namespace {}",
                pinned.cluster_ifindex, pinned.egress_ifindex, pinned.netns_inode
            )),
            _ => match self.check(&identity).and_then(|()| self.info()) {
                Ok(info) => PinnedState::Usable(Box::new(info)),
                Err(error) => unusable(error.to_string()),
            },
        })
    }

    /// Checks the layout version, and the types and sizes of all maps.
    ///
    /// The version alone does not suffice: a program older than layout version 7 replaces the other maps of a later
    /// version, but leaves its `INSTANCE`.
    pub(super) fn check(&self, identity: &Identity) -> Result<(), MapsError> {
        check_version(identity)?;
        let matches = |map: &PinnedMap| {
            MapInfo::from_pin(self.map(map.name)).is_ok_and(|info| map.matches(&info))
        };
        match MAPS.iter().find(|map| !matches(map)) {
            Some(map) => Err(MapsError::WrongShape(map.name)),
            None => Ok(()),
        }
    }

    /// The number of flows, if they can be counted. A flow has two entries in every version.
    fn count_flows(&self) -> Option<u32> {
        ["FLOWS_V4", "FLOWS_V6"].iter().try_fold(0, |flows, name| {
            let entries = raw::count_keys(&MapData::from_pin(self.map(name)).ok()?).ok()?;
            Some(flows + entries / 2)
        })
    }

    /// The identity of a dataplane of any version.
    pub(super) fn identity(&self) -> Result<Identity, MapsError> {
        // Before version 7 there was no `INSTANCE`.
        let [name, earlier] = IDENTITY_MAPS;
        let pinned = |name| named(name, MapData::from_pin(self.map(name)));
        match pinned(name).or_else(|error| pinned(earlier).map_err(|_| error)) {
            Ok(map) => identity(&map),
            Err(error) => Err(error),
        }
    }

    /// The dataplane of these interfaces, which is being replaced.
    pub fn replaced_dataplane(&self, pair: InterfacePair) -> ReplacedDataplane {
        let maps = IDENTITY_MAPS.iter().filter_map(|name| {
            let map = MapData::from_pin(self.map(name)).ok()?;
            // `CONFIG` contains the identity only before version 7.
            (InterfacePair::of(&identity(&map).ok()?) == pair).then_some(map)
        });
        ReplacedDataplane(maps.collect())
    }

    /// Reads `INSTANCE` of a dataplane of this version.
    fn info(&self) -> Result<InstanceInfo, MapsError> {
        let [name, _] = IDENTITY_MAPS;
        let open = || {
            let data = MapData::from_pin(self.map(name))?;
            Array::<_, InstanceInfo>::try_from(Map::from_map_data(data)?)?.get(&0, 0)
        };
        named(name, open())
    }

    /// Removes the pins of these maps. Programs that use the maps keep them alive.
    pub(super) fn remove_maps<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<(), PinsError> {
        for name in names {
            remove(&self.map(name))?;
        }
        Ok(())
    }

    /// Removes the pins of all maps, including those that only earlier versions had.
    ///
    /// # Errors
    ///
    /// If a pin cannot be removed.
    pub fn remove_all_maps(&self) -> Result<(), PinsError> {
        self.remove_maps(MAPS.iter().map(|map| map.name).chain(RETIRED_MAPS))
    }

    /// Whether programs are attached by links that are pinned here.
    pub fn has_links(&self) -> bool {
        PROGRAMS.iter().any(|program| self.link(program).exists())
    }

    /// Removes the links, which detaches their programs.
    ///
    /// # Errors
    ///
    /// If a pin cannot be removed.
    pub(super) fn remove_links(&self) -> Result<(), PinsError> {
        PROGRAMS
            .iter()
            .try_for_each(|program| remove(&self.link(program)))
    }

    /// Removes all pins and the directory. This detaches a dataplane on tcx that has no process.
    ///
    /// # Errors
    ///
    /// If a pin or the directory cannot be removed.
    pub fn remove(&self) -> Result<(), PinsError> {
        self.remove_links()?;
        self.remove_all_maps()?;
        match fs::remove_dir(&self.directory) {
            // The directory contains files that are not ours.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            result => result.map_err(PinsError::io(&self.directory)),
        }
    }

    /// Whether these are the pins of the dataplane with this identity. A router of other interfaces may have replaced
    /// them.
    pub(super) fn belongs_to(&self, identity: &Identity) -> bool {
        self.identity().is_ok_and(|pinned| pinned == *identity)
    }
}

/// Checks that an identity has this program's layout version.
pub(super) const fn check_version(identity: &Identity) -> Result<(), MapsError> {
    if identity.layout_version == LAYOUT_VERSION {
        Ok(())
    } else {
        Err(MapsError::Version {
            found: identity.layout_version,
            known: LAYOUT_VERSION,
        })
    }
}

/// Reads the identity from one of [`IDENTITY_MAPS`].
pub(super) fn identity(map: &MapData) -> Result<Identity, MapsError> {
    const LEN: usize = size_of::<Identity>();
    let value = named(IDENTITY_MAPS[0], raw::only_value(map))?;
    let head = value.get(..LEN).ok_or(MapsError::Unidentified)?;
    Ok(bytemuck::pod_read_unaligned(head))
}

fn remove(path: &Path) -> Result<(), PinsError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PinsError::io(path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_state_is_pinned_and_neither_working_memory_nor_what_is_retired() {
        let is_pinned = |name: &str| MAPS.iter().any(|map| map.name == name);
        for name in IDENTITY_MAPS
            .iter()
            .chain(&["FLOWS_V4", "SWEEPER", "TRACE_FILTER"])
        {
            assert!(is_pinned(name), "{name}");
        }
        assert!(!is_pinned("AYA_LOGS"));
        assert!(!MAPS.iter().any(|map| map.name.starts_with(['.', '_'])));
        assert!(!RETIRED_MAPS.iter().any(|name| is_pinned(name)));
        assert!(!MAPS.iter().any(|map| map.name.starts_with("TEMP_")));
    }

    #[test]
    fn a_directory_outside_of_a_bpf_file_system_is_refused_with_advice() {
        let error = Pins::at(Path::new("/tmp/no/such")).unwrap_err().to_string();
        assert!(
            error.contains("/tmp/no/such") && error.contains("mount -t bpf"),
            "{error}"
        );
    }
}
