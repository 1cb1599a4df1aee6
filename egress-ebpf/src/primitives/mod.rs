//! The lowest floor: the kernel's facilities in Rust. Nothing here uses a step.
//!
//! From the bottom up: [`global`], [`scratch`], [`maps`]; then [`packet`], [`clock`], [`counters`], [`subscribers`],
//! [`limit`] and [`log`]; then [`family`].

#[macro_use]
pub mod global;

pub mod clock;
pub mod counters;
pub mod family;
pub mod limit;
pub mod log;
pub mod maps;
pub mod packet;
pub mod scratch;
pub mod subscribers;
