//! Metrics and health over HTTP, for a monitoring system and an orchestrator.
//!
//! The run loop owns the maps, on one thread. A page sends its query through a bounded channel, and the run loop
//! answers it between other events ([`Queries::next`], [`Query::answer`]). Slow work, such as a walk of the flow table,
//! happens outside the run loop.

mod encode;
mod flow_counts;
mod health;
mod http;
mod pages;
mod queries;
pub mod registry;
mod snapshot;
mod state;

use std::{net::SocketAddr, sync::Arc};

pub use http::ListenError;
use http::{Lane, listen, serve};
use pages::Pages;
pub use queries::{Queries, Query};
pub use state::{Reloads, RunState};

use crate::net::interface::Interfaces;

/// The maximum number of concurrent clients.
const CLIENTS: usize = 32;

/// Serves metrics and health for as long as the runtime lives. Without an address, the returned queries never yield.
///
/// The sockets are bound to the cluster interface and to the loopback interface, whatever the address is: packets that
/// arrive on the egress interface reach no listener.
///
/// # Errors
///
/// If listening on the address fails.
pub fn start(
    address: Option<SocketAddr>,
    cluster_interface: &str,
    kernel: &Interfaces,
) -> Result<Queries, ListenError> {
    let Some(address) = address else {
        return Ok(Queries::NONE);
    };
    let outer = listen(address, cluster_interface)?;
    // With port 0 the kernel chooses a port.
    let address = outer.local_addr().unwrap_or(address);
    let inner = listen(address, "lo")?;
    let (run_loop, queries) = queries::channel(CLIENTS);
    let pages = Arc::new(Pages {
        run_loop,
        kernel: kernel.clone(),
        flow_counts: Arc::default(),
    });
    let lane = Lane::new(CLIENTS);
    for listener in [outer, inner] {
        tokio::spawn(serve(listener, lane.clone(), Arc::clone(&pages)));
    }
    log::info!("metrics on http://{address}/metrics, on {cluster_interface} and lo");
    Ok(queries)
}
