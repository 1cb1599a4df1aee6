//! The userspace half of the egress router: loads the dataplane, fills it with the rules of an `EgressRouter` resource,
//! and reports on it.
//!
//! The binary `egress-router` only calls [`cli::main`]; tests use the library directly.

pub mod cli;
pub mod dataplane;
pub mod net;
pub mod router;
pub mod telemetry;
