//! The router's own addresses, which userspace keeps current.

use egress_common::{AddressKey, NetworkHeader, Outcome, Side, TransportHeader, protocol, tcp};

use crate::family::Pipeline;

/// Whether the interface of `side` has `address`.
#[inline(always)]
pub fn is_own<F: Pipeline>(side: Side, address: F::Address) -> bool {
    F::addresses()
        .get_ptr(AddressKey::new(side, address))
        .is_some()
}

/// What becomes of a packet on the egress interface that belongs to no flow.
///
/// Linux takes a packet for any address that the pod has on any interface; here `net1` takes those for its own only, and
/// those that neighbour discovery needs. Connections that the pod itself has opened work, but nobody opens one from there:
/// what the router serves is the cluster's. So TCP is let in if it is seen to be no opening: a fragment may be put together
/// to one, and what cannot be read may be one.
#[inline(always)]
pub fn unsolicited<F: Pipeline>(
    network: &NetworkHeader<F::Address>,
    transport: Result<&TransportHeader, Outcome>,
) -> Outcome {
    let destination = network.addresses.destination;
    if F::is_for_neighbours(destination) {
        return Outcome::EgressOwn;
    }
    if !is_own::<F>(Side::Egress, destination) {
        return Outcome::NotForEgress;
    }
    let may_open = match transport {
        Ok(transport) => {
            let begins = tcp::Flags::SYN | tcp::Flags::ACK;
            network.protocol == protocol::TCP && transport.flags.0 & begins == tcp::Flags::SYN
        }
        Err(Outcome::OtherProtocol | Outcome::UnrelatedIcmpError) => false,
        Err(Outcome::Fragment) => network.protocol == protocol::TCP,
        Err(_) => !matches!(network.protocol, protocol::UDP | protocol::SCTP),
    };
    if may_open {
        Outcome::EgressRefused
    } else {
        Outcome::EgressOwn
    }
}
