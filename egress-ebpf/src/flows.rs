//! The flow table.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::{BPF_EXIST, BPF_NOEXIST};
use egress_common::{
    Address as _, Bytes as _, Change, ETHERNET_HEADER_LEN, Flow, FlowState, NextHopRef, Outcome,
    Pair, Ports, Side, SweepItem, Translation, TransportHeader, Tuple, protocol, tcp,
};

#[cfg(doc)]
use crate::ports;
use crate::{
    clock, counters,
    events::{self, Slot},
    family::Pipeline,
    maps, next_hop,
    packet::{Headers, Packet},
    rare, rules, sweep,
};

/// `-E2BIG`: the map is full.
const E2BIG: i32 = -7;

/// One direction of a flow, in the flow table.
///
/// The kernel keeps an element's memory until the program ends. If the flow ends meanwhile, another flow may take the
/// memory over, and the worst that follows is a packet counted for the wrong one.
pub struct FlowRef<F: Pipeline>(*mut Flow<F::Address>);

/// The flow that a packet with this tuple belongs to.
#[inline(always)]
pub fn find<F: Pipeline>(tuple: &Tuple<F::Address>) -> Option<FlowRef<F>> {
    F::flows().get_ptr_mut(tuple).map(FlowRef)
}

/// The first step of opening a flow, for a client's packet that belongs to none: puts into [`Scratch`] what the rules make
/// of it. The second is [`ports::take`], for which the port that the flow would like to have stands in the translation.
///
/// That is the client's own, or the one that the connection before it had, if the packet opens that anew: to the server it
/// is then the same client again, whose sequence numbers and time stamps go on. From another client's port the server may
/// take them for those of an old segment, as long as it remembers the connection (TIME-WAIT).
///
/// [`Scratch`]: crate::scratch::Scratch
#[inline(always)]
pub fn plan<F: Pipeline>(packet: &Packet) -> Result<(), Outcome> {
    let scratch = F::scratch().ok_or(Outcome::NotConfigured)?;
    let config = maps::CONFIG.get(0).ok_or(Outcome::NotConfigured)?;
    let Headers { network, transport } = packet.headers::<F>()?;
    let transport = transport?;
    scratch.tuple = Tuple::new(
        Side::Cluster,
        network.protocol,
        network.addresses,
        transport.ports,
    );
    let opens = transport.may_open && transport.flags.is_open_request();
    // Read once: the rules may change meanwhile.
    let set = config.rules_in_force();
    rules::find::<F>(packet, config, set, scratch, opens)?;
    if !transport.may_open {
        return Err(Outcome::NotAnOpening);
    }
    if network.ttl <= 1 {
        return Err(Outcome::TtlExceeded);
    }
    let reserved = F::reserved(config.rule_set(set));
    if reserved.is_unspecified() {
        return Err(Outcome::NotConfigured);
    }
    let wanted = match find::<F>(&scratch.tuple) {
        // It is over, or the packet would be of it: see `is_reopened_by`.
        Some(before) if opens => {
            let reply = before.translation().peer(Side::Cluster, network.protocol);
            events::end::<F>(&scratch.tuple, &reply, Slot::Packets, Change::Reopened);
            reply.ports.destination
        }
        _ => scratch.tuple.ports.source,
    };
    scratch.translation = Translation::new(
        &scratch.tuple,
        Pair {
            source: reserved,
            destination: scratch.rule.destination,
        },
        Ports {
            source: wanted,
            destination: scratch.rule.target_port,
        },
    );
    let now_ns = clock::now_ns();
    scratch.towards_client = next_hop::find::<F>(Side::Cluster, network.addresses.source, now_ns);
    scratch.towards_server = next_hop::find::<F>(Side::Egress, scratch.rule.destination, now_ns);
    Ok(())
}

/// The third step: enters the flow, for which a NAT port is taken, into the table.
#[inline(always)]
pub fn enter<F: Pipeline>() -> Result<(), Outcome> {
    let scratch = F::scratch().ok_or(Outcome::NotConfigured)?;
    // The entry that clients' packets find comes last: whoever finds it can count on the other.
    scratch.entry.translation = scratch.translation;
    scratch.entry.next_hop = scratch.towards_server;
    match F::flows().insert(&scratch.tuple, &scratch.entry, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            scratch.item = SweepItem::new(scratch.tuple, scratch.entry.opened_ns, sweep::tick());
            // Without a sweep nobody takes out the items of flows that have ended: the oldest makes place.
            let flags = if maps::KERNEL_EXPIRY.load() == 0 {
                u64::from(BPF_EXIST)
            } else {
                0
            };
            // Full of flows that were ended by packets since the sweep last passed.
            if F::sweep_queue().push(&scratch.item, flags).is_err() {
                let _ = F::flows().remove(&scratch.tuple);
                let _ = F::flows().remove(&scratch.reply);
                return Err(Outcome::FlowTableFull);
            }
            counters::count_flow(scratch.rule.id);
            events::opened::<F>(&scratch.tuple, &scratch.reply);
        }
        Err(E2BIG) => {
            let _ = F::flows().remove(&scratch.reply);
            return Err(Outcome::FlowTableFull);
        }
        Err(_) => {
            // Another CPU has just opened the flow.
            let _ = F::flows().remove(&scratch.reply);
        }
    }
    Ok(())
}

impl<F: Pipeline> FlowRef<F> {
    #[inline(always)]
    pub fn translation(&self) -> &Translation<F::Address> {
        // SAFETY: the pointer comes from a lookup, see the type; a flow's translation never changes.
        unsafe { &(*self.0).translation }
    }

    /// The whole entry.
    #[inline(always)]
    pub const fn entry(&self) -> &Flow<F::Address> {
        // SAFETY: the pointer comes from a lookup, see the type. What packets write into it meanwhile is words by themselves.
        unsafe { &*self.0 }
    }

    /// The other direction's entry, for packets that arrive on `side`.
    #[inline(always)]
    fn peer(&self, side: Side, protocol: u8) -> Option<Self> {
        find(&self.translation().peer(side, protocol))
    }

    /// Whether a client's packet asks for a new connection on the tuple of one that has ended.
    #[inline(always)]
    pub fn is_reopened_by(&self, tuple: &Tuple<F::Address>, transport: &TransportHeader) -> bool {
        if !transport.flags.is_open_request() || !transport.may_open {
            return false;
        }
        match self.peer(Side::Cluster, tuple.protocol) {
            Some(reply) => FlowState::of(tuple.protocol, self.entry(), reply.entry()).is_closing(),
            None => true,
        }
    }

    /// Whom the flow's packets are handed to, if that is known and to be relied on for this one.
    ///
    /// About once a second a packet goes by the kernel's own way, so that its neighbour table sees that the neighbour is
    /// in use, and asks whether it is there.
    #[inline(always)]
    pub fn next_hop(&self, passed: Passed) -> NextHopRef {
        // SAFETY: the pointer comes from a lookup, see the type.
        unsafe {
            if passed.is_first_for_long {
                return NextHopRef::NONE;
            }
            (*self.0).next_hop
        }
    }

    /// Looks for the flow's next hop anew; for packets that arrive on `side`.
    #[inline(always)]
    pub fn renew_next_hop(&self, side: Side, now_ns: u64) {
        let destination = self.translation().addresses.destination;
        let reference = next_hop::find::<F>(side.opposite(), destination, now_ns);
        // SAFETY: the pointer comes from a lookup, see the type. It is one word.
        unsafe { (*self.0).next_hop = reference };
    }

    /// Notes that a packet of the flow has passed.
    #[inline(always)]
    pub fn count(
        &self,
        packet: &Packet,
        side: Side,
        flags: tcp::Flags,
        acknowledgment: u32,
    ) -> Passed {
        let flow = self.0;
        let packets = packet.segments();
        let bytes = (packet.len() - ETHERNET_HEADER_LEN) as u64;
        let now_ns = clock::now_ns();
        let mut is_first_for_long = false;
        // SAFETY: the pointer comes from a lookup, see the type. Several CPUs may write at once: the counters are
        // added to atomically, a time stamp is as good as the other, and a flag that is lost comes with the next segment.
        let rule = unsafe {
            // Written only when they change, so that a flow's packets share the entry's memory unchanged.
            if now_ns.wrapping_sub((*flow).last_seen_ns) > clock::RESOLUTION_NS {
                (*flow).last_seen_ns = now_ns;
                is_first_for_long = true;
            }
            let seen = (*flow).seen.with(flags);
            if seen != (*flow).seen {
                (*flow).seen = seen;
            }
            // In the line that the counters below are written to anyway.
            if acknowledgment != 0 {
                (*flow).ack_or_tag = acknowledgment;
            }
            atomic_xadd::<_, _, { AtomicOrdering::Relaxed }>(
                &raw mut (*flow).traffic.packets,
                packets,
            );
            atomic_xadd::<_, _, { AtomicOrdering::Relaxed }>(&raw mut (*flow).traffic.bytes, bytes);
            (*flow).rule
        };
        counters::count_traffic(rule, side, packets, bytes);
        Passed {
            now_ns,
            is_first_for_long,
        }
    }
}

/// What is known of a packet that was counted.
#[derive(Clone, Copy)]
pub struct Passed {
    pub now_ns: u64,
    /// Whether the one before was more than a second ago, or about so long.
    pub is_first_for_long: bool,
}

/// What becomes of a packet's flow by its [rare flags](tcp::Flags::SLOW_PATH): those of them that count.
///
/// A TCP segment with SYN has its segment size clamped, an SCTP packet with INIT or INIT ACK announces a tag, and the end
/// of a connection counts if it comes from one of its ends.
#[inline(always)]
pub fn examine<F: Pipeline>(packet: &Packet, side: Side) -> Result<tcp::Flags, Outcome> {
    let Headers { network, transport } = packet.headers::<F>()?;
    let transport = transport?;
    let mut flags = transport.flags;
    let protocol = network.protocol;
    let begins = flags.0 & tcp::Flags::SYN != 0;
    if begins && protocol == protocol::TCP {
        rare::clamp_segment_size(packet)?;
        if flags.0 & tcp::Flags::ENDS == 0 {
            return Ok(flags);
        }
    }
    let scratch = F::scratch().ok_or(Outcome::NotConfigured)?;
    scratch.tuple = Tuple::new(side, protocol, network.addresses, transport.ports);
    let Some(flow) = find::<F>(&scratch.tuple) else {
        return Ok(flags);
    };
    if begins && protocol == protocol::SCTP {
        flow.announce(packet, network.payload_offset);
    }
    if flags.0 & tcp::Flags::ENDS != 0
        && let Some(receiver) = flow.peer(side, protocol)
    {
        let number = packet
            .load(network.payload_offset + TransportHeader::SEQUENCE_OR_TAG_OFFSET)
            .ok_or(Outcome::Truncated)?;
        if !Flow::is_credible_end(protocol, number, flow.entry(), receiver.entry()) {
            flags.0 &= !tcp::Flags::ENDS;
        }
    }
    Ok(flags)
}

impl<F: Pipeline> FlowRef<F> {
    /// Remembers the tag that an SCTP packet with INIT or INIT ACK announces. The first counts: a later one may be forged, or
    /// opens a new association between the same ends.
    #[inline(always)]
    fn announce(&self, packet: &Packet, transport: usize) {
        let Some(tag) = packet.load::<u32>(transport + TransportHeader::INITIATE_TAG_OFFSET) else {
            return;
        };
        let flow = self.0;
        // SAFETY: the pointer comes from a lookup, see the type.
        unsafe {
            if (*flow).ack_or_tag == 0 {
                (*flow).ack_or_tag = tag;
            }
        }
    }
}
