//! The dataplane under the BPF file system, where it outlives the process: its maps and, by tcx, its links.

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

/// A map that is pinned, as the object declares it.
pub(super) struct PinnedMap {
    /// Its name.
    pub(super) name: &'static str,
    /// Its type: a `bpf_map_type`.
    kind: u32,
    /// Bytes of a key.
    key_size: u32,
    /// Bytes of a value.
    value_size: u32,
}

/// The maps that make up a dataplane's state: all those of the object but a CPU's working memory. The build script lists
/// them.
pub(super) const MAPS: &[PinnedMap] = &include!(concat!(env!("OUT_DIR"), "/pinned_maps.rs"));

/// Maps that earlier versions pinned, and that are gone. They go with a dataplane that is replaced.
const RETIRED_MAPS: [&str; 4] = ["TAPS", "TAPS_LOST", "WANTED_V4", "WANTED_V6"];

/// The map that says whose dataplane it is, and before layout version 7 the one that did.
pub(super) const IDENTITY_MAPS: [&str; 2] = ["INSTANCE", "CONFIG"];

impl PinnedMap {
    /// Whether a map is of this type, and its keys and values of these sizes.
    fn is_like(&self, info: &MapInfo) -> bool {
        let kind = info.map_type().map(|kind| kind as u32);
        kind.is_ok_and(|kind| kind == self.kind)
            && (info.key_size(), info.value_size()) == (self.key_size, self.value_size)
    }
}

/// Why the dataplane could not be pinned.
#[derive(Debug, Error)]
pub enum PinsError {
    /// There is no BPF file system.
    #[error("{} is not in a BPF file system: mount one (mount -t bpf bpf /sys/fs/bpf), or run with --no-pin", .0.display())]
    NotBpf(PathBuf),
    /// A file could not be made, read or removed.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// A pinned map could not be opened.
    #[error("{}: {source}", .path.display())]
    Map {
        /// Which.
        path: PathBuf,
        /// What went wrong.
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

/// A directory of pinned maps and links.
#[derive(Clone, Debug)]
pub struct Pins {
    directory: PathBuf,
}

/// What is pinned under a directory.
#[derive(Clone, Debug)]
pub enum PinnedState {
    /// Nothing.
    Empty,
    /// The dataplane of the same interfaces, which can be taken over.
    Usable(Box<InstanceInfo>),
    /// One of the same interfaces whose maps cannot be used.
    Unusable {
        /// Why, for people.
        reason: String,
        /// How many flows it has; `None` if they cannot be counted.
        flows: Option<u32>,
    },
    /// One of other interfaces.
    Foreign(String),
}

/// A dataplane that is replaced: the maps that say whose it is.
pub struct Former(Vec<MapData>);

impl Former {
    /// Makes it nobody's. The kernel frees programs a while after they were replaced; until then they would still be taken for
    /// the router's. Packets do not notice.
    pub fn disown(self) {
        for map in self.0 {
            let disowned = raw::only_value(&map).and_then(|mut value| {
                value[..size_of::<Identity>()].fill(0);
                raw::set_only_value(&map, &mut value)
            });
            if let Err(error) = disowned {
                log::debug!(
                    "the dataplane that was replaced is still said to be the router's: {error}"
                );
            }
        }
    }
}

/// The interfaces that a dataplane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfacePair {
    /// Inode of their network namespace.
    pub netns_inode: u64,
    /// Index of the cluster interface.
    pub cluster_ifindex: u32,
    /// Index of the egress interface.
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
    /// Where dataplanes are pinned, each by its name, unless told otherwise.
    pub const DEFAULT: &str = "/sys/fs/bpf/egress-router";

    /// The pins under `directory`, which is made if it is not there. Only its owner may look into it.
    ///
    /// # Errors
    ///
    /// If it is not in a BPF file system, or cannot be made.
    pub fn at(directory: &Path) -> Result<Self, PinsError> {
        let there = directory
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("/"));
        let kind = statfs(there)
            .map_err(io::Error::from)
            .map_err(PinsError::io(there))?
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

    /// Where they are.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where the map with this name is.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Where the link is by which this program is attached.
    pub(super) fn link(&self, program: &str) -> PathBuf {
        self.directory.join(format!("{program}_link"))
    }

    /// How many entries the pinned map with this name has room for; `None` if there is none.
    pub(super) fn max_entries(&self, name: &str) -> Option<u32> {
        let info = MapInfo::from_pin(self.map(name)).ok()?;
        Some(info.max_entries())
    }

    /// The pins that are under `directory`.
    pub fn existing(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
        }
    }

    /// The pinned maps.
    ///
    /// # Errors
    ///
    /// If one is not there, or is of another version.
    pub fn maps(&self) -> Result<Maps, MapsError> {
        Maps::from_source(|name| {
            let data = MapData::from_pin(self.map(name));
            Some(data.and_then(Map::from_map_data))
        })
    }

    /// What is pinned here, for a router of these interfaces.
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
            return Ok(unusable("no map says of which version it is".to_owned()));
        };
        let was = InterfacePair::of(&identity);
        Ok(match identity.layout_version {
            0 => unusable("its maps were not filled".to_owned()),
            _ if was != pair => PinnedState::Foreign(format!(
                "it is of interfaces {} and {} in network namespace {}",
                was.cluster_ifindex, was.egress_ifindex, was.netns_inode
            )),
            _ => match self.check(&identity).and_then(|()| self.info()) {
                Ok(info) => PinnedState::Usable(Box::new(info)),
                Err(error) => unusable(error.to_string()),
            },
        })
    }

    /// Checks that the maps are of this version.
    ///
    /// Their types and sizes are checked as well: a program from before version 7 leaves the `INSTANCE` of a later one when
    /// it replaces the rest.
    pub(super) fn check(&self, identity: &Identity) -> Result<(), MapsError> {
        check_version(identity)?;
        let is_like = |map: &PinnedMap| {
            MapInfo::from_pin(self.map(map.name)).is_ok_and(|info| map.is_like(&info))
        };
        match MAPS.iter().find(|map| !is_like(map)) {
            Some(map) => Err(MapsError::Unlike(map.name)),
            None => Ok(()),
        }
    }

    /// How many flows there are, if they can be counted. Each has two entries, in every version.
    fn count_flows(&self) -> Option<u32> {
        ["FLOWS_V4", "FLOWS_V6"].iter().try_fold(0, |flows, name| {
            let entries = raw::count_keys(&MapData::from_pin(self.map(name)).ok()?).ok()?;
            Some(flows + entries / 2)
        })
    }

    /// Whose dataplane it is, of whatever version.
    pub(super) fn identity(&self) -> Result<Identity, MapsError> {
        // One of before version 7 has no `INSTANCE`.
        let [name, earlier] = IDENTITY_MAPS;
        let pinned = |name| named(name, MapData::from_pin(self.map(name)));
        match pinned(name).or_else(|error| pinned(earlier).map_err(|_| error)) {
            Ok(map) => identity(&map),
            Err(error) => Err(error),
        }
    }

    /// The dataplane of these interfaces, which is to be replaced.
    pub fn former(&self, pair: InterfacePair) -> Former {
        let maps = IDENTITY_MAPS.iter().filter_map(|name| {
            let map = MapData::from_pin(self.map(name)).ok()?;
            // `CONFIG` says so before version 7 only.
            (InterfacePair::of(&identity(&map).ok()?) == pair).then_some(map)
        });
        Former(maps.collect())
    }

    /// What its process keeps, if it is of this version.
    fn info(&self) -> Result<InstanceInfo, MapsError> {
        let [name, _] = IDENTITY_MAPS;
        let open = || {
            let data = MapData::from_pin(self.map(name))?;
            Array::<_, InstanceInfo>::try_from(Map::from_map_data(data)?)?.get(&0, 0)
        };
        named(name, open())
    }

    /// Removes the pins of these maps. They live on in the programs that use them.
    pub(super) fn remove_maps<'n>(
        &self,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Result<(), PinsError> {
        for name in names {
            remove(&self.map(name))?;
        }
        Ok(())
    }

    /// Removes the pins of all maps, also of those that only earlier versions had.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub fn remove_all_maps(&self) -> Result<(), PinsError> {
        self.remove_maps(MAPS.iter().map(|map| map.name).chain(RETIRED_MAPS))
    }

    /// Whether programs are attached by links that are pinned here.
    pub fn has_links(&self) -> bool {
        PROGRAMS.iter().any(|program| self.link(program).exists())
    }

    /// Removes the links, by which their programs come off the interfaces.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub(super) fn remove_links(&self) -> Result<(), PinsError> {
        PROGRAMS
            .iter()
            .try_for_each(|program| remove(&self.link(program)))
    }

    /// Removes everything, and the directory. A dataplane without a process comes off the interfaces by that, if tcx holds it.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub fn remove(&self) -> Result<(), PinsError> {
        self.remove_links()?;
        self.remove_all_maps()?;
        match fs::remove_dir(&self.directory) {
            // Somebody else keeps something there.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => Ok(()),
            result => result.map_err(PinsError::io(&self.directory)),
        }
    }

    /// Whether these are the pins of this dataplane. A router of other interfaces may have displaced them.
    pub(super) fn is_of(&self, identity: &Identity) -> bool {
        self.identity().is_ok_and(|pinned| pinned == *identity)
    }
}

/// Checks that a dataplane's maps are said to be of this version.
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

/// Whose dataplane one of [`IDENTITY_MAPS`] is of.
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
    fn a_directory_elsewhere_is_refused_with_what_to_do() {
        let error = Pins::at(Path::new("/tmp/no/such")).unwrap_err().to_string();
        assert!(
            error.contains("/tmp/no/such") && error.contains("mount -t bpf"),
            "{error}"
        );
    }
}
