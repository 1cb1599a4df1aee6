//! The kernel half of the egress router: two TC programs, one for each interface of the pod.
//!
//! `eth0_ingress` takes what clients send to the router, `net1_ingress` what servers answer. A packet of a flow is
//! translated and leaves by the other interface; for every other packet there is an [`Outcome`], and what becomes of it
//! stands in one table, in `egress_common::Outcome`. `docs/packet-flow.md` tells a packet's way in full.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    reason = "the macro of each entry makes a function that has no documentation"
)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value, a key or value is copied to the stack of 512 bytes"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "lengths of packets and words of the kernel's interface, which fit; a checked conversion is a branch"
)]
#![expect(
    internal_features,
    reason = "BPF has no stable atomics: core::sync::atomic is empty on this target"
)]
#![feature(asm_experimental_arch, core_intrinsics)]

// The macros of aya-log-ebpf expand to paths in the crate `aya_log_ebpf`; see `log.rs`.
extern crate self as aya_log_ebpf;
pub use log::macro_support;

mod abort;
mod addresses;
mod clock;
mod counters;
mod events;
mod family;
mod flows;
mod forward;
mod fragments;
mod icmp;
mod log;
mod maps;
mod mss;
mod next_hop;
mod packet;
mod ports;
mod rare;
mod reject;
mod rewrite;
mod rules;
mod scratch;
mod sweep;
mod trace;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use egress_common::{
    Bytes as _, ETHERNET_HEADER_LEN, NetworkHeader, Outcome, Part, Side, TransportHeader, Tuple,
    V4, V6, Verdict, tcp,
};
use network_types::eth::EtherType;

use crate::{
    family::Pipeline,
    flows::FlowRef,
    forward::Forward,
    packet::{Headers, Packet},
};

const IPV4: u16 = EtherType::Ipv4 as u16;
const IPV6: u16 = EtherType::Ipv6 as u16;

/// On the ingress of the cluster interface: from clients to servers.
#[classifier]
pub fn eth0_ingress(ctx: TcContext) -> i32 {
    let packet = Packet::new(ctx);
    trace::arrived(&packet, Side::Cluster);
    let forward = match packet.ether_type() {
        IPV4 => from_cluster::<V4>(&packet),
        IPV6 => from_cluster::<V6>(&packet),
        _ => Err(Outcome::OtherEtherType),
    };
    conclude(&packet, Side::Cluster, forward)
}

/// On the ingress of the egress interface: from servers to clients.
#[classifier]
pub fn net1_ingress(ctx: TcContext) -> i32 {
    let packet = Packet::new(ctx);
    trace::arrived(&packet, Side::Egress);
    let forward = match packet.ether_type() {
        IPV4 => from_egress::<V4>(&packet),
        IPV6 => from_egress::<V6>(&packet),
        _ => Err(Outcome::OtherEtherType),
    };
    conclude(&packet, Side::Egress, forward)
}

/// Starts the timer that ends idle flows; run once by the loader (`BPF_PROG_TEST_RUN`), on Linux 5.17 and newer.
#[classifier]
pub fn start_sweep(_ctx: TcContext) -> i32 {
    match sweep::start() {
        Ok(()) => 0,
        Err(_) => TC_ACT_SHOT,
    }
}

/// Ends a flow that userspace names in the frame (`BPF_PROG_TEST_RUN`), and tells those who follow the flows.
#[classifier]
pub fn end_flow(ctx: TcContext) -> i32 {
    let packet = Packet::new(ctx);
    let ended = match packet.ether_type() {
        IPV4 => events::end_by_order::<V4>(&packet),
        IPV6 => events::end_by_order::<V6>(&packet),
        _ => Err(Outcome::OtherEtherType),
    };
    match ended {
        Ok(()) => 0,
        Err(_) => TC_ACT_SHOT,
    }
}

/// A packet from a client: its flow, or a new one by a rule, takes it to the server.
#[inline(always)]
fn from_cluster<F: Pipeline>(packet: &Packet) -> Result<Forward, Outcome> {
    if !packet.is_for_the_interface() {
        return Err(Outcome::OtherFrame);
    }
    let Headers { network, transport } = packet.headers::<F>()?;
    let transport = match transport {
        Err(Outcome::UnrelatedIcmpError) => {
            F::translate_error(packet, Side::Cluster)?;
            return Ok(Forward::out_of(Side::Egress));
        }
        Err(Outcome::Fragment) => {
            F::translate_fragment(packet, Side::Cluster)?;
            return Ok(Forward::out_of(Side::Egress));
        }
        transport => transport?,
    };
    if matches!(network.part, Part::First) {
        F::remember_fragment(packet, Side::Cluster)?;
    }
    let tuple = Tuple::new(
        Side::Cluster,
        network.protocol,
        network.addresses,
        transport.ports,
    );
    let flow = flows::find::<F>(&tuple).filter(|flow| !flow.is_reopened_by(&tuple, &transport));
    let flow = if let Some(flow) = flow {
        flow
    } else {
        F::open_flow(packet)?;
        let flow = flows::find::<F>(&tuple).ok_or(Outcome::FlowTableFull)?;
        log::opened(network.protocol, transport.ports, flow.translation().ports);
        flow
    };
    pass_on(packet, &network, &flow, Side::Cluster, &transport)
}

/// A packet from the external network: only a flow takes it into the cluster.
#[inline(always)]
fn from_egress<F: Pipeline>(packet: &Packet) -> Result<Forward, Outcome> {
    let Headers { network, transport } = packet.headers::<F>()?;
    let transport = match transport {
        _ if !packet.is_for_the_interface() => {
            return Err(addresses::unsolicited::<F>(
                &network,
                transport.as_ref().map_err(|it| *it),
            ));
        }
        Ok(transport) => transport,
        Err(Outcome::UnrelatedIcmpError) => {
            F::translate_error(packet, Side::Egress)?;
            return Ok(Forward::out_of(Side::Cluster));
        }
        Err(Outcome::Fragment) => {
            return match F::translate_fragment(packet, Side::Egress) {
                Ok(()) => Ok(Forward::out_of(Side::Cluster)),
                Err(Outcome::Fragment) => Err(addresses::unsolicited::<F>(
                    &network,
                    Err(Outcome::Fragment),
                )),
                Err(outcome) => Err(outcome),
            };
        }
        Err(outcome) => return Err(addresses::unsolicited::<F>(&network, Err(outcome))),
    };
    if matches!(network.part, Part::First) {
        F::remember_fragment(packet, Side::Egress)?;
    }
    let tuple = Tuple::new(
        Side::Egress,
        network.protocol,
        network.addresses,
        transport.ports,
    );
    let Some(flow) = flows::find::<F>(&tuple) else {
        return Err(addresses::unsolicited::<F>(&network, Ok(&transport)));
    };
    pass_on(packet, &network, &flow, Side::Egress, &transport)
}

/// A packet of a flow, on its way to the other side.
#[inline(always)]
fn pass_on<F: Pipeline>(
    packet: &Packet,
    network: &NetworkHeader<F::Address>,
    flow: &FlowRef<F>,
    side: Side,
    transport: &TransportHeader,
) -> Result<Forward, Outcome> {
    if network.ttl <= 1 {
        return Err(Outcome::TtlExceeded);
    }
    let mtu = maps::CONFIG
        .get(0)
        .ok_or(Outcome::NotConfigured)?
        .mtu(side.opposite());
    // Nearly every packet is short enough as it is; one that is to be segmented may be short enough in parts.
    if packet.len() - ETHERNET_HEADER_LEN > mtu as usize && packet.wire_len(network) > mtu as usize
    {
        return Err(Outcome::PacketTooBig);
    }
    let flags = if transport.flags.0 & tcp::Flags::SLOW_PATH == 0 {
        transport.flags
    } else {
        F::examine(packet, side)?
    };
    rewrite::rewrite::<F>(packet, network, flow.translation())?;
    let passed = flow.count(packet, side, flags, transport.acknowledgment);
    let next_hop = flow.next_hop(passed);
    if !next_hop.is_none() && next_hop::address(packet, next_hop, passed.now_ns) {
        return Ok(Forward::addressed(side.opposite()));
    }
    if passed.is_first_for_long {
        flow.renew_next_hop(side, passed.now_ns);
    }
    Ok(Forward::out_of(side.opposite()))
}

/// Turns what was decided into the kernel's verdict. Packets that are not forwarded are counted here, by reason.
#[inline(always)]
fn conclude(packet: &Packet, side: Side, forward: Result<Forward, Outcome>) -> i32 {
    trace::decided(packet, &forward);
    let outcome = match forward {
        Ok(forward) => return forward.redirect(),
        Err(outcome) => outcome,
    };
    counters::count(outcome);
    log::outcome(side, outcome);
    match outcome.verdict() {
        // Not TC_ACT_OK: other programs on the interface are to have their say.
        Verdict::Pass => TC_ACT_UNSPEC,
        Verdict::Drop => TC_ACT_SHOT,
        Verdict::Reject => match rare::reject(packet, side, outcome) {
            Ok(()) => Forward::out_of(side).redirect(),
            Err(_) => TC_ACT_SHOT,
        },
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this can be reached.
    loop {}
}

// SAFETY: the symbol is only read by the kernel's loader, and nothing else has its name.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
