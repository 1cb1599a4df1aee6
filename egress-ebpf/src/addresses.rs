//! The router's own addresses, which userspace keeps current.

use egress_common::{AddressKey, Outcome, Side};

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
/// those that neighbour discovery needs.
#[inline(always)]
pub fn unsolicited<F: Pipeline>(destination: F::Address) -> Outcome {
    if F::is_for_neighbours(destination) || is_own::<F>(Side::Egress, destination) {
        Outcome::EgressOwn
    } else {
        Outcome::NotForEgress
    }
}
