//! The userspace half of the egress router: loads the dataplane, fills it with the rules of an
//! `EgressRouter` resource, and shows what it does.
//!
//! The binary `egress-router` is a thin layer over this library; tests use the library directly.

pub mod dataplane;
pub mod flow_log;
pub mod interface;
pub mod kernel;
pub mod metrics;
pub mod privileges;
