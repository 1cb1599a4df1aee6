//! The userspace half of the egress router: reads an `EgressRouter` spec, loads and fills the dataplane, and shows what
//! it does.
//!
//! The binary `egress-router` is a thin layer over this library; tests use the library directly.

pub mod dataplane;
pub mod flow_log;
pub mod interface;
pub mod kernel;
pub mod metrics;
pub mod privileges;
pub mod spec;
