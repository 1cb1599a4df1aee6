//! Whether the router can do its work just now.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use tokio::time::{Instant, sleep};

use super::state::RunState;
use crate::net::interface::{InterfaceError, Interfaces};

/// How many servers' routes are looked up. A router of more has them by the same few gateways.
const SERVERS: usize = 64;
/// How long a neighbour has to answer: the kernel asks once a second.
const ANSWER: Duration = Duration::from_millis(1500);
const POLL: Duration = Duration::from_millis(50);

/// Why the router is not ready, a sentence each; nothing if it is.
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
        Err(error) => reasons.push(format!("the addresses of {}: {error}", state.egress.name)),
    }
    match unresolved(state, kernel).await {
        Ok(found) => reasons.extend(found),
        Err(error) => reasons.push(format!("the next hops: {error}")),
    }
    // One line each.
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

/// What is wrong with the ways to the servers. Asks neighbours who are not known, and gives them the time to answer.
async fn unresolved(state: &RunState, kernel: &Interfaces) -> Result<Vec<String>, InterfaceError> {
    let (index, name) = (state.egress.index, &state.egress.name);
    let mut reasons = Vec::new();
    let mut hops = BTreeSet::new();
    for server in state.servers.iter().take(SERVERS) {
        match kernel.next_hop(index, *server).await {
            Ok(Some(hop)) => {
                hops.insert(hop);
            }
            Ok(None) | Err(_) => reasons.push(format!("{name} has no route to {server}")),
        }
    }
    let deadline = Instant::now() + ANSWER;
    for hop in unknown(kernel, index, &hops).await? {
        // What is wrong shows soon enough: nobody will be known.
        let _ = kernel.ask_neighbour(index, hop).await;
    }
    loop {
        let unknown = unknown(kernel, index, &hops).await?;
        if unknown.is_empty() || Instant::now() > deadline {
            let reason = |hop| format!("the next hop {hop} on {name} does not answer");
            reasons.extend(unknown.into_iter().map(reason));
            return Ok(reasons);
        }
        sleep(POLL).await;
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
