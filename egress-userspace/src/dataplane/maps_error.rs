//! The errors of map operations.

use aya::maps::MapError;
use thiserror::Error;

/// Why a map could not be read or written.
#[derive(Debug, Error)]
pub enum MapsError {
    /// The map does not exist.
    #[error("the dataplane has no map {0}: it is from another version of this program")]
    Missing(&'static str),
    /// The map has another type or size, or the kernel refused the operation.
    #[error("map {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// What went wrong.
        source: MapError,
    },
    /// The maps have another layout version.
    #[error("the dataplane's maps have layout version {found}, this program knows version {known}")]
    Version {
        /// The dataplane's version.
        found: u32,
        /// This program's version.
        known: u32,
    },
    /// A pinned map is missing, or its type or sizes differ from this program's, in spite of an equal layout version.
    #[error(
        "the pinned map {0} is missing or has another type or size: another version of this program has pinned it"
    )]
    WrongShape(&'static str),
    /// The map that should contain the identity is too small for it.
    #[error("the dataplane's maps have no layout version")]
    Unidentified,
}

/// Adds the map's name to an error.
pub(super) fn named<T>(name: &'static str, result: Result<T, MapError>) -> Result<T, MapsError> {
    result.map_err(|source| MapsError::Map { name, source })
}
