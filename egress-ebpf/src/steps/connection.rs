//! The beginning and the end of a connection: MSS clamping, tags, and credible ends.

use egress_common::{Bytes as _, Flow, Outcome, PacketKind, Side, TransportHeader, protocol, tcp};

use super::{flows, mss, parse};
use crate::primitives::{family::KernelFamily, packet::Packet};

/// The flags of the packet, without an end that is not credible.
#[inline(always)]
pub fn flags<F: KernelFamily>(
    packet: &Packet,
    side: Side,
    transport: &TransportHeader,
) -> Result<tcp::Flags, Outcome> {
    if transport.flags.0 & tcp::Flags::SLOW_PATH == 0 {
        return Ok(transport.flags);
    }
    examine_flags::<F>(packet, side)
}

global_fn! {
    /// [`examine`].
    fn examine_flags<F>(packet: &Packet, side: Side) -> Result<tcp::Flags, Outcome> = examine::<F>;
    V4 => examine_flags_v4, V6 => examine_flags_v6
}

/// Examines a packet that has some of [`tcp::Flags::SLOW_PATH`], and returns its flags.
///
/// The MSS of a TCP SYN is clamped. The tag that an SCTP INIT or INIT ACK announces is recorded. The flags of an end
/// are removed if it is not credible.
#[inline(always)]
fn examine<F: KernelFamily>(packet: &Packet, side: Side) -> Result<tcp::Flags, Outcome> {
    let headers = parse::headers::<F>(packet)?;
    let PacketKind::Transport(transport) = headers.kind() else {
        return Err(Outcome::Malformed);
    };
    let mut flags = transport.flags;
    let protocol = headers.network.protocol;
    let payload = headers.network.payload_offset;
    let begins = flags.0 & tcp::Flags::SYN != 0;
    if begins && protocol == protocol::TCP {
        mss::clamp::<F>(packet)?;
        if flags.0 & tcp::Flags::ENDS == 0 {
            return Ok(flags);
        }
    }
    let tuple = &mut F::temp_flow()?.lookup;
    *tuple = headers.network.tuple(side, transport.ports);
    let Some(flow) = flows::find::<F>(tuple) else {
        return Ok(flags);
    };
    if begins && protocol == protocol::SCTP {
        flow.remember_tag(packet, payload);
    }
    if flags.0 & tcp::Flags::ENDS != 0
        && let Some(receiver) = flow.peer(side, protocol)
    {
        let sequence_or_tag = packet
            .load(payload + TransportHeader::SEQUENCE_OR_TAG_OFFSET)
            .ok_or(Outcome::Truncated)?;
        if !Flow::is_credible_end(protocol, sequence_or_tag, flow.entry(), receiver.entry()) {
            flags.0 &= !tcp::Flags::ENDS;
        }
    }
    Ok(flags)
}
