//! The flow table.

use core::intrinsics::{AtomicOrdering, atomic_xadd};

use aya_ebpf::bindings::BPF_NOEXIST;
use egress_common::{
    Address as _, Bytes as _, ETHERNET_HEADER_LEN, Flow, Outcome, Pair, Port, Ports, Side,
    SweepItem, Translation, Tuple, tcp,
};

use crate::{
    clock, counters,
    family::Pipeline,
    maps,
    packet::{Headers, Packet},
    ports, rules, sweep,
};

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

/// The first half of opening a flow, for a client's packet that belongs to none: puts into [`Scratch`] what the rules make
/// of it.
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
    rules::find::<F>(packet, config, scratch)?;
    if !transport.may_open {
        return Err(Outcome::NotAnOpening);
    }
    if network.ttl <= 1 {
        return Err(Outcome::TtlExceeded);
    }
    let reserved = F::reserved(config);
    if reserved.is_unspecified() {
        return Err(Outcome::NotConfigured);
    }
    scratch.translation = Translation::new(
        &scratch.tuple,
        Pair {
            source: reserved,
            destination: scratch.rule.destination,
        },
        Ports {
            source: Port::new(0),
            destination: scratch.rule.target_port,
        },
    );
    Ok(())
}

/// The second half: takes a NAT port, and enters the flow that was planned into the table.
#[inline(always)]
pub fn open<F: Pipeline>(packet: &Packet) -> Result<(), Outcome> {
    let scratch = F::scratch().ok_or(Outcome::NotConfigured)?;
    let config = maps::CONFIG.get(0).ok_or(Outcome::NotConfigured)?;
    ports::take::<F>(packet, scratch, config, clock::now_ns())?;
    // The entry that clients' packets find comes last: whoever finds it can count on the other.
    scratch.entry.translation = scratch.translation;
    match F::flows().insert(&scratch.tuple, &scratch.entry, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            counters::count_flow(scratch.rule.id);
            if maps::KERNEL_EXPIRY.load() != 0 {
                let item = SweepItem::new(scratch.tuple, scratch.entry.opened_ns, sweep::tick());
                // Full only of flows that were ended by packets since the sweep last passed: this one has to wait.
                if F::sweep_queue().push(&item, 0).is_err() {
                    let _ = F::flows().remove(&scratch.tuple);
                    let _ = F::flows().remove(&scratch.reply);
                    return Err(Outcome::FlowTableFull);
                }
            }
        }
        Err(_) => {
            // Another CPU has just opened the flow, or there is no room for its second entry.
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

    #[inline(always)]
    fn seen(&self) -> tcp::Seen {
        // SAFETY: the pointer comes from a lookup, see the type.
        unsafe { (*self.0).seen }
    }

    /// Ends the flow if a client's segment asks for a new connection on the tuple of one that has ended.
    #[inline(always)]
    pub fn ends_with(&self, tuple: &Tuple<F::Address>, flags: tcp::Flags) -> bool {
        if !flags.is_open_request() {
            return false;
        }
        let reply_tuple = self.translation().peer(Side::Cluster, tuple.protocol);
        let reply = find::<F>(&reply_tuple).map_or(tcp::Seen::NOTHING, |reply| reply.seen());
        if !tcp::State::of(self.seen(), reply).is_closing() {
            return false;
        }
        // Gone already if another CPU ended it first.
        let _ = F::flows().remove(tuple);
        let _ = F::flows().remove(reply_tuple);
        true
    }

    /// Notes that a packet of the flow has passed.
    #[inline(always)]
    pub fn count(&self, packet: &Packet, side: Side, flags: tcp::Flags) {
        let flow = self.0;
        let packets = packet.segments();
        let bytes = (packet.len() - ETHERNET_HEADER_LEN) as u64;
        let now_ns = clock::now_ns();
        // SAFETY: the pointer comes from a lookup, see the type. Several CPUs may write at once: the counters are
        // added to atomically, a time stamp is as good as the other, and a flag that is lost comes with the next segment.
        let rule = unsafe {
            // Written only when they change, so that a flow's packets share the entry's memory unchanged.
            if now_ns.wrapping_sub((*flow).last_seen_ns) > clock::RESOLUTION_NS {
                (*flow).last_seen_ns = now_ns;
            }
            let seen = (*flow).seen.with(flags);
            if seen != (*flow).seen {
                (*flow).seen = seen;
            }
            atomic_xadd::<_, _, { AtomicOrdering::Relaxed }>(
                &raw mut (*flow).traffic.packets,
                packets,
            );
            atomic_xadd::<_, _, { AtomicOrdering::Relaxed }>(&raw mut (*flow).traffic.bytes, bytes);
            (*flow).rule
        };
        counters::count_traffic(rule, side, packets, bytes);
    }
}
