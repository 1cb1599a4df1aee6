//! Telling a sender that its packet was dropped.

mod icmp;
mod sctp;

use egress_common::{Outcome, Side};

use crate::primitives::packet::Packet;

/// Turns a packet that arrived on `side` into one that tells its sender about `outcome`.
///
/// # Errors
///
/// The packet must be dropped without an answer.
#[inline(always)]
pub fn reject(packet: &Packet, side: Side, outcome: Outcome) -> Result<(), Outcome> {
    if matches!(outcome, Outcome::SctpRefused) {
        sctp::turn_into_abort(packet)
    } else {
        icmp::turn_into_error(packet, side, outcome)
    }
}
