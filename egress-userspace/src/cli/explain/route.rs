//! The routes to the server and back to the client, with the neighbour entries of their next hops.

use std::net::IpAddr;

use egress_common::Side;

use super::explanation::{Explanation, Finding};
use crate::net::{
    interface::{InterfaceError, Interfaces},
    neighbours::Neighbour,
};

/// Adds the step about the route to `destination` through the interface with the index `index`, which is that of
/// `side`. Returns `true` if the connection proceeds.
pub async fn note(
    explanation: &mut Explanation,
    interfaces: &Interfaces,
    side: Side,
    index: u32,
    destination: IpAddr,
) -> anyhow::Result<bool> {
    let name = match side {
        Side::Cluster => "way back",
        Side::Egress => "way out",
    };
    let next_hop = match interfaces.next_hop(index, destination).await {
        Ok(next_hop) => next_hop,
        // The kernel's answer if it has no route.
        Err(InterfaceError::Netlink(error)) => {
            let detail = format!("no route to {destination}: {error}");
            return Ok(explanation.note(name, Finding::End, detail));
        }
        Err(error) => return Err(error.into()),
    };
    let Some(next_hop) = next_hop else {
        let detail = format!("found no route to {destination} through this interface");
        return Ok(explanation.note(name, Finding::Doubt, detail));
    };
    let (finding, state) = judge(interfaces.neighbour(index, next_hop).await?, side);
    Ok(explanation.note(name, finding, format!("by {next_hop}{state}")))
}

/// What the state of the next hop's neighbour entry means for a connection, and its description.
fn judge(neighbour: Neighbour, side: Side) -> (Finding, String) {
    match (neighbour, side) {
        (Neighbour::Known(mac), _) => {
            let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
            (Finding::Good, format!(" ({mac})"))
        }
        (Neighbour::NeedsNone, _) => (Finding::Good, String::new()),
        (Neighbour::Unknown, _) => (
            Finding::Doubt,
            ", whose MAC address is unknown: the kernel will resolve it".to_owned(),
        ),
        (Neighbour::Asked, _) => (
            Finding::Doubt,
            ", whose MAC address the kernel is resolving (INCOMPLETE)".to_owned(),
        ),
        (Neighbour::Silent, Side::Egress) => (
            Finding::End,
            ", which did not answer address resolution (FAILED): packets are lost until it does"
                .to_owned(),
        ),
        // The client's own packet shows that it is reachable again.
        (Neighbour::Silent, Side::Cluster) => (
            Finding::Doubt,
            ", which did not answer address resolution (FAILED): the kernel will try again"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_gateway_ends_the_connection_and_a_silent_client_does_not() {
        assert_eq!(judge(Neighbour::Silent, Side::Egress).0, Finding::End);
        assert_eq!(judge(Neighbour::Silent, Side::Cluster).0, Finding::Doubt);
        assert_eq!(judge(Neighbour::Asked, Side::Egress).0, Finding::Doubt);
        assert_eq!(judge(Neighbour::NeedsNone, Side::Egress).0, Finding::Good);
    }
}
