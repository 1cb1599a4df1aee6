//! Metrics and health: what a monitoring system and an orchestrator ask a running router, by HTTP.
//!
//! The run loop owns the maps, on one thread. A page sends its query through a bounded channel, and the loop answers it
//! between two other events ([`Queries::next`], [`Query::answer`]). Slow work, such as walking the flow table, happens
//! outside the loop.

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

/// How many clients are served at once.
const CLIENTS: usize = 32;

/// Serves metrics and health for as long as the runtime lives; without an address, there are no queries.
///
/// The sockets are bound to the cluster interface and the loopback, whatever the address: packets that arrive on the
/// egress interface find no listener.
///
/// # Errors
///
/// If the address cannot be listened on.
pub fn start(
    address: Option<SocketAddr>,
    cluster_interface: &str,
    kernel: &Interfaces,
) -> Result<Queries, ListenError> {
    let Some(address) = address else {
        return Ok(Queries::NONE);
    };
    let outer = listen(address, cluster_interface)?;
    // Port 0 lets the kernel choose.
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
    log::info!("metrics on http://{address}/metrics, by {cluster_interface} and lo");
    Ok(queries)
}
