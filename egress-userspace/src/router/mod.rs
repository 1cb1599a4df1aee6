//! The life of a router: start from a resource and a [`RouterConfig`], run, reload, and shut down or leave the
//! dataplane to the next process.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use egress_userspace::router::{Router, RouterConfig};
//!
//! let resource = egress_api::load("router.yaml")?;
//! let mut router = Router::start(RouterConfig::default(), resource).await?;
//! router.run_until(tokio::signal::ctrl_c()).await??;
//! router.shut_down().await?;
//! # Ok(())
//! # }
//! ```

mod config;
mod error;
mod events;
mod reload;
mod run;
mod spec_file;
mod stale;
mod start;
mod take_over;

use std::time::SystemTime;

use egress_api::{EgressRouter, RuleTable};

use self::{events::Events, spec_file::SpecFile};
use crate::{
    dataplane::{AttachMode, Attachment, Dataplane, InstanceLock, NextHops},
    net::interface::{Interface, Interfaces},
    telemetry::{
        flow_log_writer::FlowLogWriter,
        metrics::{Queries, Reloads},
    },
};

pub use self::{
    config::{OnRuleChange, Pinning, RouterConfig},
    error::{ReloadError, RunError, StartError},
};

/// A router that is attached to its interfaces.
pub struct Router {
    config: RouterConfig,
    /// The resource in force.
    resource: EgressRouter,
    table: RuleTable,
    spec_file: Option<SpecFile>,
    started: SystemTime,
    /// The results of reloads so far.
    reloads: Reloads,
    interfaces: Interfaces,
    cluster: Interface,
    egress: Interface,
    dataplane: Box<Dataplane>,
    attachment: Attachment,
    next_hops: NextHops,
    flow_log: FlowLogWriter,
    /// Queries from the metrics and health pages.
    queries: Queries,
    events: Events,
    /// Released last.
    _lock: InstanceLock,
}

impl Router {
    /// The interface on the cluster network, as found at the start.
    pub const fn cluster_interface(&self) -> &Interface {
        &self.cluster
    }

    /// The interface on the external network, as found at the start.
    pub const fn egress_interface(&self) -> &Interface {
        &self.egress
    }

    /// How the programs are attached.
    pub const fn attach_mode(&self) -> AttachMode {
        self.attachment.mode
    }

    /// Whether the running router needs `CAP_NET_ADMIN`: to detach from clsact, or to resolve the gateway for health
    /// checks.
    pub fn changes_network(&self) -> bool {
        self.attach_mode() == AttachMode::Clsact || self.config.metrics_address.is_some()
    }
}
