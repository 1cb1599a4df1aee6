//! The limits of a packet that belongs to a flow: its TTL or hop limit, and the MTU of the outgoing interface.

use egress_common::{Bytes as _, ETHERNET_HEADER_LEN, NetworkHeader, Outcome, Side, protocol};

use crate::primitives::{maps, packet::Packet};

/// The segment length of an SCTP packet whose segments have different lengths (`GSO_BY_FRAGS` in `linux/skbuff.h`). Its
/// sender has cut them to fit the path's MTU.
const GSO_BY_FRAGS: usize = 0xffff;

/// Checks a packet that arrived on `side`.
///
/// # Errors
///
/// [`Outcome::TtlExceeded`] or [`Outcome::PacketTooBig`].
#[inline(always)]
pub fn check<A>(packet: &Packet, network: &NetworkHeader<A>, side: Side) -> Result<(), Outcome> {
    if network.ttl <= 1 {
        return Err(Outcome::TtlExceeded);
    }
    let mtu = maps::config()?.mtu(side.opposite()) as usize;
    // Nearly every packet is short enough as it is. A segmentation-offload packet may be after its segmentation.
    if packet.len() - ETHERNET_HEADER_LEN > mtu && wire_len(packet, network) > mtu {
        return Err(Outcome::PacketTooBig);
    }
    Ok(())
}

/// The length of the longest resulting packet on the wire, from the IP header on.
#[inline(always)]
fn wire_len<A>(packet: &Packet, network: &NetworkHeader<A>) -> usize {
    let segment = match packet.segment_len() {
        0 => return packet.len() - ETHERNET_HEADER_LEN,
        GSO_BY_FRAGS => return 0,
        segment => segment,
    };
    let transport = match network.protocol {
        protocol::TCP => {
            let offset: u8 = packet.load(network.payload_offset + 12).unwrap_or(0x50);
            (offset >> 4) as usize * 4
        }
        _ => 8,
    };
    network.payload_offset - ETHERNET_HEADER_LEN + transport + segment
}
