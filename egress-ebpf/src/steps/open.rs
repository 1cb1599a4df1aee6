//! Opening a flow for a client's packet that belongs to none.
//!
//! This takes three global functions, [`plan`], [`ports`] and [`enter`]. They run one after the other, so that their
//! stack frames do not add up. They share data in [`TempFlow`].

use aya_ebpf::bindings::{BPF_EXIST, BPF_NOEXIST};
use egress_common::{
    Address as _, Change, Outcome, PacketKind, Pair, Ports, Side, SweepItem, Translation,
    TransportHeader, Tuple,
};

use super::{
    events,
    flows::{self, FlowRef},
    next_hop, parse, ports, rules, sweep,
};
use crate::primitives::{
    clock, counters,
    family::KernelFamily,
    log, maps,
    packet::Packet,
    scratch::{EventSlot, TempFlow},
};

/// `-E2BIG`: the map is full.
const E2BIG: i32 = -7;

/// The flow of a client's packet, which is opened if there is none.
#[inline(always)]
pub fn find_or_open<F: KernelFamily>(
    packet: &Packet,
    tuple: &Tuple<F::Address>,
    transport: &TransportHeader,
) -> Result<FlowRef<F>, Outcome> {
    if let Some(flow) = flows::find::<F>(tuple)
        && !flow.is_reopened_by(tuple, transport)
    {
        return Ok(flow);
    }
    open::<F>(packet)?;
    let flow = flows::find::<F>(tuple).ok_or(Outcome::FlowTableFull)?;
    log::opened(tuple.protocol, transport.ports, flow.translation().ports);
    Ok(flow)
}

/// Opens a flow. If the table is full, another flow is evicted first.
#[inline(always)]
fn open<F: KernelFamily>(packet: &Packet) -> Result<(), Outcome> {
    plan_flow::<F>(packet)?;
    match allocate_and_enter::<F>() {
        Err(Outcome::FlowTableFull) => {
            sweep::make_room::<F>()?;
            allocate_and_enter::<F>()
        }
        opened => opened,
    }
}

#[inline(always)]
fn allocate_and_enter<F: KernelFamily>() -> Result<(), Outcome> {
    ports::allocate::<F>()?;
    enter_flow::<F>()
}

global_fn! {
    /// [`plan`].
    fn plan_flow<F>(packet: &Packet) -> Result<(), Outcome> = plan::<F>;
    V4 => plan_flow_v4, V6 => plan_flow_v6
}

global_fn! {
    /// [`enter`].
    fn enter_flow<F>() -> Result<(), Outcome> = enter::<F>;
    V4 => enter_flow_v4, V6 => enter_flow_v6
}

/// Matches the packet with the rules. Writes [`Plan`], and the translation with the preferred NAT port.
///
/// The preferred NAT port is the client's own. If the packet reopens a connection, it is that connection's NAT port
/// instead: the server then sees the same client again, whose sequence numbers and time stamps continue. With another
/// client's port, a server that still remembers the connection (TIME-WAIT) might take the new segments for old ones.
///
/// [`Plan`]: crate::primitives::scratch::Plan
#[inline(always)]
fn plan<F: KernelFamily>(packet: &Packet) -> Result<(), Outcome> {
    let TempFlow {
        plan, translation, ..
    } = F::temp_flow()?;
    let config = maps::config()?;
    let headers = parse::headers::<F>(packet)?;
    let network = &headers.network;
    let PacketKind::Transport(transport) = headers.kind() else {
        return Err(Outcome::Malformed);
    };
    plan.tuple = network.tuple(Side::Cluster, transport.ports);
    let opens = transport.may_open && transport.flags.is_open_request();
    // Read only once, because a reload may change it.
    let set = config.rules_in_force();
    plan.rule = rules::find::<F>(packet, config, set, &plan.tuple, opens)?;
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
    let preferred = match flows::find::<F>(&plan.tuple) {
        // This flow is over: otherwise the packet would belong to it. See `is_reopened_by`.
        Some(before) if opens => {
            let reply = before.translation().peer(Side::Cluster, network.protocol);
            events::end::<F>(&plan.tuple, &reply, EventSlot::Packets, Change::Reopened);
            reply.ports.destination
        }
        _ => plan.tuple.ports.source,
    };
    *translation = Translation::new(
        &plan.tuple,
        Pair {
            source: reserved,
            destination: plan.rule.destination,
        },
        Ports {
            source: preferred,
            destination: plan.rule.target_port,
        },
    );
    let now_ns = clock::now_ns();
    plan.towards_client = next_hop::find::<F>(Side::Cluster, network.addresses.source, now_ns);
    plan.towards_server = next_hop::find::<F>(Side::Egress, plan.rule.destination, now_ns);
    Ok(())
}

/// Inserts the flow, for which a NAT port was allocated, into the table and the sweep queue.
#[inline(always)]
fn enter<F: KernelFamily>() -> Result<(), Outcome> {
    let temp = F::temp_flow()?;
    let (plan, mapping) = (&temp.plan, &temp.mapping);
    // The original entry is inserted last, so that whoever finds it also finds the reply entry.
    temp.entry.translation = temp.translation;
    temp.entry.next_hop = plan.towards_server;
    match F::flows().insert(&plan.tuple, &temp.entry, u64::from(BPF_NOEXIST)) {
        Ok(()) => {
            temp.item = SweepItem::new(plan.tuple, temp.entry.opened_ns, sweep::tick());
            // Without a sweep, nobody removes the items of ended flows. The oldest is evicted then.
            let flags = if maps::KERNEL_EXPIRY.load() == 0 {
                u64::from(BPF_EXIST)
            } else {
                0
            };
            // Fails if the queue is full of flows that packets have ended since the last sweep.
            if F::sweep_queue().push(&temp.item, flags).is_err() {
                let _ = F::flows().remove(&plan.tuple);
                let _ = F::flows().remove(&mapping.reply_tuple);
                return Err(Outcome::FlowTableFull);
            }
            counters::count_flow(plan.rule.id);
            events::opened::<F>(&plan.tuple, &mapping.reply_tuple);
        }
        Err(E2BIG) => {
            let _ = F::flows().remove(&mapping.reply_tuple);
            return Err(Outcome::FlowTableFull);
        }
        Err(_) => {
            // Another CPU has just opened the same flow.
            let _ = F::flows().remove(&mapping.reply_tuple);
        }
    }
    Ok(())
}
