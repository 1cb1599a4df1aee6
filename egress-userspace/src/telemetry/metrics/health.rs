//! Readiness: whether the router can forward packets now.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use tokio::time::{Instant, sleep};

use super::state::RunState;
use crate::net::interface::{InterfaceError, Interfaces};

/// The maximum number of servers whose routes are looked up. Larger sets of servers share a few gateways.
const MAX_SERVERS: usize = 64;
/// How long a neighbour may take to answer. The kernel asks once a second.
const RESOLVE_TIMEOUT: Duration = Duration::from_millis(1500);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The reasons why the router is not ready; empty if it is ready.
pub(super) async fn reasons(state: &RunState, kernel: &Interfaces) -> Vec<String> {
    let mut reasons = Vec::new();
    if !state.attached {
        reasons.push("the kernel half is not attached".to_owned());
    }
    if let Some(error) = &state.reloads.last_error {
        reasons.push(format!(
            "the last change of the config was refused, the rules before it are in force: {error}"
        ));
    }
    match kernel.addresses(state.egress.index).await {
        Ok(present) => reasons.extend(missing_addresses(state, &present)),
        Err(error) => reasons.push(format!(
            "cannot read the addresses of {}: {error}",
            state.egress.name
        )),
    }
    match unresolved(state, kernel).await {
        Ok(found) => reasons.extend(found),
        Err(error) => reasons.push(format!("cannot check the next hops: {error}")),
    }
    // The page has one line per reason.
    reasons
        .iter()
        .map(|reason| reason.replace('\n', "; "))
        .collect()
}

fn missing_addresses(state: &RunState, present: &BTreeSet<IpAddr>) -> Vec<String> {
    let is_missing = |address: &&IpAddr| !present.contains(address);
    let name = &state.egress.name;
    state
        .reserved
        .iter()
        .filter(is_missing)
        .map(|address| format!("{name} does not have the reserved address {address}"))
        .collect()
}

/// The servers without a route and the next hops that do not answer. Makes the kernel resolve next hops and waits for
/// it.
async fn unresolved(state: &RunState, kernel: &Interfaces) -> Result<Vec<String>, InterfaceError> {
    let (index, name) = (state.egress.index, &state.egress.name);
    let mut reasons = Vec::new();
    let mut hops = BTreeSet::new();
    for server in state.servers.iter().take(MAX_SERVERS) {
        match kernel.next_hop(index, *server).await {
            Ok(Some(hop)) => {
                hops.insert(hop);
            }
            Ok(None) | Err(_) => reasons.push(format!("{name} has no route to {server}")),
        }
    }
    let deadline = Instant::now() + RESOLVE_TIMEOUT;
    for hop in unknown(kernel, index, &hops).await? {
        // On an error the next hop stays unknown, which is reported below.
        let _ = kernel.resolve_neighbour(index, hop).await;
    }
    loop {
        let unknown = unknown(kernel, index, &hops).await?;
        if unknown.is_empty() || Instant::now() > deadline {
            let reason = |hop| format!("the next hop {hop} on {name} does not answer");
            reasons.extend(unknown.into_iter().map(reason));
            return Ok(reasons);
        }
        sleep(POLL_INTERVAL).await;
    }
}

async fn unknown(
    kernel: &Interfaces,
    index: u32,
    hops: &BTreeSet<IpAddr>,
) -> Result<Vec<IpAddr>, InterfaceError> {
    let known = kernel.neighbours().await?;
    let is_unknown = |hop: &IpAddr| !known.contains_key(&(index, *hop));
    Ok(hops.iter().copied().filter(is_unknown).collect())
}
