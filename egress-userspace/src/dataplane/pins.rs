//! The dataplane under the BPF file system, where it outlives the process: its maps and, by tcx, its links.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use aya::maps::{Array, Map, MapData, MapError, MapInfo};
use egress_common::{Config, LAYOUT_VERSION};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};
use thiserror::Error;

use super::{
    load::PROGRAMS,
    maps::{Maps, MapsError, named},
};

/// The maps that make up a dataplane's state. The others are a CPU's scratch, or a reader's.
pub(super) const MAPS: [&str; 31] = [
    "FLOWS_V4",
    "FLOWS_V6",
    "RULES_V4",
    "RULES_V6",
    "ADDRESSES_V4",
    "ADDRESSES_V6",
    "FRAGMENTS_V4",
    "FRAGMENTS_V6",
    "HELD_V4",
    "HELD_V6",
    "NEXT_HOPS",
    "ROUTES_V4",
    "ROUTES_V6",
    "UNRESOLVED_V4",
    "UNRESOLVED_V6",
    "EXHAUSTED_V4",
    "EXHAUSTED_V6",
    "SWEEP_V4",
    "SWEEP_V6",
    "SWEEPER",
    "CONFIG",
    "COUNTERS",
    "EVICTED",
    "RULE_COUNTERS",
    "ERROR_LIMIT",
    "SUBSCRIBERS",
    "EVENTS_LOST",
    "FLOW_LOG",
    "FOLLOW",
    "TRACE",
    "TRACE_FILTER",
];

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

/// What an earlier router has left under a directory.
#[derive(Clone, Debug)]
pub enum Left {
    /// Nothing.
    Nothing,
    /// The dataplane of the same interfaces, which can be taken over.
    Dataplane(Box<Config>),
    /// One of the same interfaces whose maps cannot be used. The reason is for people.
    Unusable(String),
    /// One of other interfaces.
    Foreign(String),
}

/// Which interfaces a dataplane is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Inode of their network namespace.
    pub netns_inode: u64,
    /// Index of the cluster interface.
    pub cluster_ifindex: u32,
    /// Index of the egress interface.
    pub egress_ifindex: u32,
}

impl Place {
    const fn of(config: &Config) -> Self {
        Self {
            netns_inode: config.netns_inode,
            cluster_ifindex: config.cluster_ifindex,
            egress_ifindex: config.egress_ifindex,
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

    /// What an earlier router has left here.
    ///
    /// # Errors
    ///
    /// If the directory cannot be read.
    pub fn left(&self, place: Place) -> Result<Left, PinsError> {
        let is_empty = fs::read_dir(&self.directory)
            .map_err(PinsError::io(&self.directory))?
            .next()
            .is_none();
        if is_empty {
            return Ok(Left::Nothing);
        }
        let Some(config) = self.config() else {
            return Ok(Left::Unusable(
                "its settings are of another version, or not there".to_owned(),
            ));
        };
        let was = Place::of(&config);
        Ok(if was != place && config.layout_version != 0 {
            Left::Foreign(format!(
                "it is of interfaces {} and {} in network namespace {}",
                was.cluster_ifindex, was.egress_ifindex, was.netns_inode
            ))
        } else if config.layout_version != LAYOUT_VERSION {
            Left::Unusable(format!(
                "its maps have layout version {}, this program knows version {LAYOUT_VERSION}",
                config.layout_version
            ))
        } else if let Some(missing) = MAPS.iter().find(|name| !self.map(name).exists()) {
            Left::Unusable(format!("the map {missing} is not there"))
        } else {
            Left::Dataplane(Box::new(config))
        })
    }

    /// The settings, if they are of this version's size.
    fn config(&self) -> Option<Config> {
        self.settings().ok()
    }

    /// The settings.
    pub(super) fn settings(&self) -> Result<Config, MapsError> {
        let open = || {
            let data = MapData::from_pin(self.map("CONFIG"))?;
            Array::<_, Config>::try_from(Map::from_map_data(data)?)?.get(&0, 0)
        };
        named("CONFIG", open())
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

    /// Removes the pins of all maps.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub fn remove_all_maps(&self) -> Result<(), PinsError> {
        self.remove_maps(MAPS)
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

    /// Whether these are the pins of the dataplane with these settings. A router of other interfaces may have displaced them.
    pub(super) fn is_of(&self, config: &Config) -> bool {
        self.config().is_some_and(|pinned| {
            pinned.pid == config.pid && Place::of(&pinned) == Place::of(config)
        })
    }
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
