//! The kernel half of the egress router: two TC programs, one for each interface of the pod.
//!
//! `eth0_ingress` receives packets from clients, `net1_ingress` those from servers. A packet of a flow is translated
//! and leaves through the other interface. Every other packet has an [`Outcome`]; one table in `egress_common::Outcome`
//! gives its verdict. `docs/packet-flow.md` describes all steps.
//!
//! The house has three floors. Each one uses only those below it:
//!
//! 1. `primitives`: the packet, the maps, the clock, counters and the log;
//! 2. `steps`: one file per step of a packet's life, in the order of `steps/mod.rs`;
//! 3. this file: the programs, and the order of the steps.

#![no_std]
#![no_main]
#![expect(
    missing_docs,
    reason = "each entry's macro generates an undocumented function"
)]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key or value that is passed by value is copied to the stack of 512 bytes"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "packet lengths and the kernel's words fit, and a checked conversion costs a branch"
)]
#![expect(
    internal_features,
    reason = "BPF has no stable atomics: core::sync::atomic is empty on this target"
)]
#![feature(asm_experimental_arch, core_intrinsics)]

// The macros of `aya-log-ebpf` expand to paths in the crate `aya_log_ebpf`; see `log.rs`.
extern crate self as aya_log_ebpf;
pub use primitives::log::macro_support;

#[macro_use]
mod primitives;
mod steps;

use aya_ebpf::{
    bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC},
    macros::classifier,
    programs::TcContext,
};
use egress_common::{Outcome, PacketKind, Part, Side, V4, V6, Verdict};

use crate::{
    primitives::{
        counters,
        family::KernelFamily,
        log,
        packet::{IPV4, IPV6, Packet},
    },
    steps::{
        addresses, connection, events, flows,
        forward::{self, Forward},
        fragments, icmp, limits, open, parse, reject, rewrite, sweep, trace,
    },
};

/// Runs on the ingress of the cluster interface: from clients to servers.
#[classifier]
pub fn eth0_ingress(ctx: TcContext) -> i32 {
    ingress(&Packet::new(ctx), Side::Cluster)
}

/// Runs on the ingress of the egress interface: from servers to clients.
#[classifier]
pub fn net1_ingress(ctx: TcContext) -> i32 {
    ingress(&Packet::new(ctx), Side::Egress)
}

#[inline(always)]
fn ingress(packet: &Packet, side: Side) -> i32 {
    trace::capture(packet, side);
    let forward = match packet.ether_type() {
        IPV4 => translate::<V4>(packet, side),
        IPV6 => translate::<V6>(packet, side),
        _ => Err(Outcome::OtherEtherType),
    };
    trace::emit(packet, &forward);
    match forward {
        Ok(forward) => forward.redirect(),
        Err(outcome) => conclude(packet, side, outcome),
    }
}

/// Translates a packet that arrived on `side`.
#[inline(always)]
fn translate<F: KernelFamily>(packet: &Packet, side: Side) -> Result<Forward, Outcome> {
    if !packet.is_for_the_interface() {
        return Err(addresses::judge_other_frame::<F>(packet, side));
    }
    let headers = parse::headers::<F>(packet)?;
    let network = &headers.network;
    let without_flow = || addresses::judge_without_flow(packet, side, &headers);
    let transport = match headers.kind() {
        PacketKind::Transport(transport) => transport,
        PacketKind::IcmpError => {
            icmp::translate::<F>(packet, side)?;
            return Ok(Forward::out_of(side.opposite()));
        }
        PacketKind::LaterFragment if fragments::translate::<F>(packet, side)? => {
            return Ok(Forward::out_of(side.opposite()));
        }
        PacketKind::LaterFragment | PacketKind::Untranslatable(_) => return Err(without_flow()),
    };
    if matches!(network.part, Part::First) {
        fragments::remember::<F>(packet, side)?;
    }
    let tuple = network.tuple(side, transport.ports);
    let flow = match side {
        // A client's packet may open a flow, if a rule matches.
        Side::Cluster => open::find_or_open::<F>(packet, &tuple, &transport)?,
        // A server's packet needs a flow.
        Side::Egress => flows::find::<F>(&tuple).ok_or_else(without_flow)?,
    };
    limits::check(packet, network, side)?;
    let flags = connection::flags::<F>(packet, side, &transport)?;
    rewrite::rewrite::<F>(packet, network, flow.translation())?;
    let accounted = flow.account(packet, side, flags, transport.acknowledgment);
    Ok(forward::along(packet, &flow, side, accounted))
}

/// Counts an outcome, and returns the kernel's action for its verdict.
#[inline(always)]
fn conclude(packet: &Packet, side: Side, outcome: Outcome) -> i32 {
    counters::count(outcome);
    log::outcome(side, outcome);
    match outcome.verdict() {
        // Not TC_ACT_OK, which would end the chain: other programs on the interface must see the packet, too.
        Verdict::Pass => TC_ACT_UNSPEC,
        Verdict::Drop => TC_ACT_SHOT,
        Verdict::Reject => match reject::reject(packet, side, outcome) {
            Ok(()) => Forward::out_of(side).redirect(),
            Err(_) => TC_ACT_SHOT,
        },
    }
}

/// Starts the timer that ends idle flows. The loader runs this program once (`BPF_PROG_TEST_RUN`), on Linux 5.17 or
/// newer.
#[classifier]
pub fn start_sweep(_ctx: TcContext) -> i32 {
    verdict_of_run(&sweep::start())
}

/// Ends the flow that userspace names in the frame (`BPF_PROG_TEST_RUN`), and emits the event.
#[classifier]
pub fn end_flow(ctx: TcContext) -> i32 {
    let packet = Packet::new(ctx);
    verdict_of_run(&match packet.ether_type() {
        IPV4 => events::end_by_order::<V4>(&packet),
        IPV6 => events::end_by_order::<V6>(&packet),
        _ => Err(Outcome::OtherEtherType),
    })
}

/// The return code of a program that userspace runs.
#[inline(always)]
const fn verdict_of_run<E>(result: &Result<(), E>) -> i32 {
    match result {
        Ok(()) => 0,
        Err(_) => TC_ACT_SHOT,
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program in which this is reachable.
    loop {}
}

// SAFETY: only the kernel's loader reads the symbol, and no other symbol has its name.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";
