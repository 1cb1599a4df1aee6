//! Sending a translated packet out of the other interface.

use aya_ebpf::helpers::{bpf_redirect, bpf_redirect_neigh};
use egress_common::{Decision, Side};

use super::{
    flows::{Accounted, FlowRef},
    next_hop,
};
use crate::primitives::{family::KernelFamily, maps, packet::Packet};

/// The index of the interface of `side`.
#[inline(always)]
pub fn ifindex(side: Side) -> u32 {
    match side {
        Side::Cluster => maps::CLUSTER_IFINDEX.load(),
        Side::Egress => maps::EGRESS_IFINDEX.load(),
    }
}

/// The decision to forward.
pub struct Forward {
    ifindex: u32,
    /// Whether the frame has the MAC addresses of its next hop already.
    is_addressed: bool,
}

/// The decision for a packet of the flow, which arrived on `side` and was rewritten and accounted.
#[inline(always)]
pub fn along<F: KernelFamily>(
    packet: &Packet,
    flow: &FlowRef<F>,
    side: Side,
    accounted: Accounted,
) -> Forward {
    let next_hop = flow.next_hop(accounted);
    if !next_hop.is_none() && next_hop::address(packet, next_hop, accounted.now_ns) {
        return Forward::addressed(side.opposite());
    }
    if accounted.is_refreshed {
        flow.renew_next_hop(side, accounted.now_ns);
    }
    Forward::out_of(side.opposite())
}

impl Forward {
    /// To the next hop that the kernel finds.
    #[inline(always)]
    pub fn out_of(side: Side) -> Self {
        Self {
            ifindex: ifindex(side),
            is_addressed: false,
        }
    }

    /// To the next hop whose address the frame has.
    #[inline(always)]
    fn addressed(side: Side) -> Self {
        Self {
            ifindex: ifindex(side),
            is_addressed: true,
        }
    }

    /// The decision as a trace record has it.
    #[inline(always)]
    pub const fn decision(&self) -> Decision {
        Decision::Forwarded {
            is_addressed: self.is_addressed,
        }
    }

    /// Hands the packet over; the result is the program's verdict.
    ///
    /// Unless the frame is addressed already, the kernel finds the route (by the new addresses, among those of the
    /// interface) and the neighbour, and puts on the Ethernet header.
    #[inline(always)]
    pub fn redirect(self) -> i32 {
        // SAFETY: without parameters (null, 0) the kernel reads nothing.
        let verdict = unsafe {
            if self.is_addressed {
                bpf_redirect(self.ifindex, 0)
            } else {
                bpf_redirect_neigh(self.ifindex, core::ptr::null_mut(), 0, 0)
            }
        };
        // TC_ACT_REDIRECT or TC_ACT_SHOT.
        verdict as i32
    }
}
