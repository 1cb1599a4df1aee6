//! The router's own addresses, which userspace keeps current, and the outcomes of packets without a flow.

use egress_common::{
    AddressKey, Bytes as _, ETHERNET_HEADER_LEN, Outcome, PacketKind, Pair, Side, protocol, tcp,
};

use super::parse::{self, Headers};
use crate::primitives::{family::KernelFamily, packet::Packet};

/// Returns `true` if the interface of `side` has `address`.
#[inline(always)]
pub fn is_own<F: KernelFamily>(side: Side, address: F::Address) -> bool {
    F::addresses()
        .get_ptr(AddressKey::new(side, address))
        .is_some()
}

global_fn! {
    /// The outcome of a packet without a flow on the egress interface. `may_open` is `true` if it may open a TCP
    /// connection.
    fn unsolicited<F>(packet: &Packet, may_open: bool) -> Outcome = judge_unsolicited::<F>;
    V4 => judge_unsolicited_v4, V6 => judge_unsolicited_v6
}

/// Linux accepts a packet for any address of the pod on any interface. Here, `net1` accepts only packets for its own
/// addresses and those that neighbour discovery needs. Connections that the pod itself opens work, but nobody can open
/// one from outside: only the cluster may use the router's services.
#[inline(always)]
fn judge_unsolicited<F: KernelFamily>(packet: &Packet, may_open: bool) -> Outcome {
    let Some(addresses) = packet.load::<Pair<F::Address>>(ETHERNET_HEADER_LEN + F::ADDRESSES)
    else {
        return Outcome::Truncated;
    };
    if F::is_for_neighbours(addresses.destination) {
        return Outcome::EgressOwn;
    }
    if !is_own::<F>(Side::Egress, addresses.destination) {
        return Outcome::NotForEgress;
    }
    if may_open {
        Outcome::EgressRefused
    } else {
        Outcome::EgressOwn
    }
}

/// The outcome of a packet on `side` that belongs to no flow and opens none.
///
/// On the egress interface, a TCP packet passes only if it certainly does not open a connection. A fragment may be part
/// of a SYN, and so may a packet that cannot be read.
#[inline(always)]
pub fn judge_without_flow<F: KernelFamily>(
    packet: &Packet,
    side: Side,
    headers: &Headers<F>,
) -> Outcome {
    let protocol = headers.network.protocol;
    let may_open = match (side, headers.kind()) {
        (Side::Egress, PacketKind::Transport(transport)) => {
            let begins = tcp::Flags::SYN | tcp::Flags::ACK;
            protocol == protocol::TCP && transport.flags.0 & begins == tcp::Flags::SYN
        }
        (Side::Egress, PacketKind::LaterFragment) => protocol == protocol::TCP,
        (
            Side::Egress,
            PacketKind::IcmpError | PacketKind::Untranslatable(Outcome::OtherProtocol),
        ) => false,
        (Side::Egress, PacketKind::Untranslatable(_)) => {
            !matches!(protocol, protocol::UDP | protocol::SCTP)
        }
        (Side::Cluster, PacketKind::Untranslatable(outcome)) => return outcome,
        // The other kinds have an outcome already.
        (Side::Cluster, _) => return Outcome::Fragment,
    };
    unsolicited::<F>(packet, may_open)
}

/// The outcome of a frame that is not for the interface of `side`.
#[inline(always)]
pub fn judge_other_frame<F: KernelFamily>(packet: &Packet, side: Side) -> Outcome {
    match side {
        Side::Cluster => Outcome::OtherFrame,
        Side::Egress => other_frame_on_egress::<F>(packet),
    }
}

global_fn! {
    /// Judges the frame as if it were for the interface and belonged to no flow.
    fn other_frame_on_egress<F>(packet: &Packet) -> Outcome = judge_as_without_flow::<F>;
    V4 => judge_other_frame_v4, V6 => judge_other_frame_v6
}

#[inline(always)]
fn judge_as_without_flow<F: KernelFamily>(packet: &Packet) -> Outcome {
    match parse::headers::<F>(packet) {
        Ok(headers) => judge_without_flow(packet, Side::Egress, &headers),
        Err(outcome) => outcome,
    }
}
