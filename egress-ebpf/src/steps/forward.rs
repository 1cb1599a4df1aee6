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
    /// `true` if the frame already has the MAC addresses of its next hop.
    is_addressed: bool,
}

/// Forwards a packet of the flow that arrived on `side` and was rewritten and accounted.
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
    /// Forwards to the next hop that a kernel lookup finds.
    #[inline(always)]
    pub fn out_of(side: Side) -> Self {
        Self {
            ifindex: ifindex(side),
            is_addressed: false,
        }
    }

    /// Forwards to the next hop whose address is in the frame.
    #[inline(always)]
    fn addressed(side: Side) -> Self {
        Self {
            ifindex: ifindex(side),
            is_addressed: true,
        }
    }

    /// The decision for the trace record.
    #[inline(always)]
    pub const fn decision(&self) -> Decision {
        Decision::Forwarded {
            is_addressed: self.is_addressed,
        }
    }

    /// Hands the packet to the kernel, and returns the program's verdict.
    ///
    /// If the frame is not addressed yet, the kernel looks up the route (of the new addresses, on this interface) and
    /// the neighbour, and writes the Ethernet header.
    #[inline(always)]
    pub fn redirect(self) -> i32 {
        // SAFETY: without parameters (null, 0), the kernel reads no memory.
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
