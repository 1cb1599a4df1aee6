//! Telling the sender of a packet that it was dropped.

mod icmp;
mod sctp;

use egress_common::{Outcome, Side};

use crate::primitives::packet::Packet;

/// Turns a packet that arrived on `side` into the one that tells its sender of `outcome`.
///
/// # Errors
///
/// The packet is to be dropped, and nobody is told.
#[inline(always)]
pub fn reject(packet: &Packet, side: Side, outcome: Outcome) -> Result<(), Outcome> {
    if matches!(outcome, Outcome::SctpRefused) {
        sctp::turn_into_abort(packet)
    } else {
        icmp::turn_into_error(packet, side, outcome)
    }
}
