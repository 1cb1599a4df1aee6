//! The ways to the server and back to the client: the kernel's routes and neighbours.

use std::net::IpAddr;

use egress_common::Side;

use super::explanation::{Explanation, Finding};
use crate::net::{
    interface::{InterfaceError, Interfaces},
    neighbours::Neighbour,
};

/// The route to `destination` by the interface of `side` with this index, and its neighbour. Whether the connection
/// goes on.
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
        // The kernel answers so where it has no route.
        Err(InterfaceError::Netlink(error)) => {
            let detail = format!("no route to {destination}: {error}");
            return Ok(explanation.note(name, Finding::End, detail));
        }
        Err(error) => return Err(error.into()),
    };
    let Some(next_hop) = next_hop else {
        let detail = format!("no route to {destination} by this interface that can be told here");
        return Ok(explanation.note(name, Finding::Doubt, detail));
    };
    let (finding, known) = known(interfaces.neighbour(index, next_hop).await?, side);
    Ok(explanation.note(name, finding, format!("by {next_hop}{known}")))
}

/// What it means for a connection that the kernel knows so much of a next hop.
fn known(neighbour: Neighbour, side: Side) -> (Finding, String) {
    match (neighbour, side) {
        (Neighbour::Known(mac), _) => {
            let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
            (Finding::Good, format!(" ({mac})"))
        }
        (Neighbour::NeedsNone, _) => (Finding::Good, String::new()),
        (Neighbour::Unknown, _) => (
            Finding::Doubt,
            ", whose MAC address is not known now: the kernel will ask for it".to_owned(),
        ),
        (Neighbour::Asked, _) => (
            Finding::Doubt,
            ", which the kernel is asking for its MAC address now (INCOMPLETE)".to_owned(),
        ),
        (Neighbour::Silent, Side::Egress) => (
            Finding::End,
            ", which has not answered when the kernel asked for its MAC address (FAILED): packets are lost until it does"
                .to_owned(),
        ),
        // A packet that comes from there shows that it is there again.
        (Neighbour::Silent, Side::Cluster) => (
            Finding::Doubt,
            ", which has not answered when the kernel asked for its MAC address (FAILED): it will ask again".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_gateway_ends_it_and_a_silent_client_may_be_back() {
        assert_eq!(known(Neighbour::Silent, Side::Egress).0, Finding::End);
        assert_eq!(known(Neighbour::Silent, Side::Cluster).0, Finding::Doubt);
        assert_eq!(known(Neighbour::Asked, Side::Egress).0, Finding::Doubt);
        assert_eq!(known(Neighbour::NeedsNone, Side::Egress).0, Finding::Good);
    }
}
