//! A router's life: started from a resource and a [`RouterConfig`], run, reloaded, and shut down or left to its
//! successor.
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
    /// The resource in force, and its rules.
    resource: EgressRouter,
    table: RuleTable,
    spec_file: Option<SpecFile>,
    started: SystemTime,
    /// How changes of the resource went.
    reloads: Reloads,
    interfaces: Interfaces,
    cluster: Interface,
    egress: Interface,
    dataplane: Box<Dataplane>,
    attachment: Attachment,
    next_hops: NextHops,
    flow_log: FlowLogWriter,
    /// What metrics and health ask.
    queries: Queries,
    events: Events,
    /// Held until everything else is gone.
    _lock: InstanceLock,
}

impl Router {
    /// The interface on the cluster network, as it was at the start.
    pub const fn cluster_interface(&self) -> &Interface {
        &self.cluster
    }

    /// The interface on the external network, as it was at the start.
    pub const fn egress_interface(&self) -> &Interface {
        &self.egress
    }

    /// How the programs are attached.
    pub const fn attach_mode(&self) -> AttachMode {
        self.attachment.mode
    }

    /// Whether a running router needs `CAP_NET_ADMIN`: to remove its clsact filters, or to resolve the gateway for the
    /// health check.
    pub fn changes_network(&self) -> bool {
        self.attach_mode() == AttachMode::Clsact || self.config.metrics_address.is_some()
    }
}
