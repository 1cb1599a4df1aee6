//! What can go wrong with a map.

use aya::maps::MapError;
use thiserror::Error;

/// Why a map could not be read or written.
#[derive(Debug, Error)]
pub enum MapsError {
    /// The map is not there.
    #[error("the dataplane has no map {0}: it is of another version than this program")]
    Missing(&'static str),
    /// The map has another layout, or the kernel refused.
    #[error("map {name}: {source}")]
    Map {
        /// The map.
        name: &'static str,
        /// What went wrong.
        source: MapError,
    },
    /// The layout is of another version.
    #[error("the dataplane's maps have layout version {found}, this program knows version {known}")]
    Version {
        /// The dataplane's version.
        found: u32,
        /// This program's version.
        known: u32,
    },
    /// A pinned map is not of the type or sizes that this program's has, whatever the version.
    #[error(
        "the pinned map {0} is not there, or not as this program has it: another version has pinned it"
    )]
    Unlike(&'static str),
    /// The map that says of which version the others are is too short to.
    #[error("the dataplane does not say of which version its maps are")]
    Unidentified,
}

/// Gives the error of a map its name.
pub(super) fn named<T>(name: &'static str, result: Result<T, MapError>) -> Result<T, MapsError> {
    result.map_err(|source| MapsError::Map { name, source })
}
