//! The lab: network namespaces joined like a cluster with an egress router, and tools that send, serve and capture
//! traffic in them.
//!
//! [`Lab::new`] builds the network, [`Lab::start_router`] starts an `egress-router` in it, and the traffic modules
//! ([`http`], [`tcp`], [`udp`], [`icmp`], [`sctp`], [`dns`], [`capture`]) work inside its namespaces.
//!
//! The library knows the router only as a binary to start, so it builds without the eBPF object.

pub mod addresses;
pub mod association;
pub mod bpffs;
pub mod bulk;
pub mod capture;
pub mod connection;
pub mod cpu;
pub mod dns;
pub mod ethtool;
pub mod fragment;
pub mod frame;
pub mod http;
pub mod icmp;
pub mod links;
pub mod namespace;
pub mod nftables;
pub mod raw;
pub mod requirements;
pub mod router;
pub mod sctp;
pub mod sender;
pub mod socket;
pub mod spec;
pub mod tcp;
pub mod topology;
pub mod udp;
pub mod wait;

use std::time::Duration;

pub use addresses::{Network, Protocol, Rule};
pub use bpffs::BpfFs;
pub use capture::Capture;
pub use connection::Connection;
pub use links::{ClusterLink, EgressLink};
pub use namespace::{Interface, Namespace};
pub use router::{Dataplane, RouterProcess};
pub use spec::Spec;
pub use topology::{Lab, LabBuilder};
pub use wait::eventually;

/// The longest wait in the lab for anything that should happen.
///
/// It is generous, so that no test fails because the machine is loaded. Nothing waits this long unless it is broken.
pub const PATIENCE: Duration = Duration::from_mins(1);
