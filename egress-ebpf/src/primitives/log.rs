//! Log records for debugging, disabled unless the loader sets a level.
//!
//! `aya-log-ebpf` declares its ring buffer in the old way, for which libbpf (and so `bpftool prog loadall`) rejects the
//! whole object. This module uses its macros, but supplies what they expand to, with a ring buffer that BTF declares.

use aya_log_ebpf_macros::{debug, trace};
use egress_common::{Outcome, Ports, Side, Verdict};

/// The names that the macros of `aya-log-ebpf` expect in the crate `aya_log_ebpf`.
#[doc(hidden)]
pub mod macro_support {
    use aya_ebpf::{Global, btf_maps::RingBuf, macros::btf_map};
    pub use aya_log_common::{
        Argument, DefaultFormatter, DisplayHint, Field, Header, IpFormatter, Level, LogValueLength,
    };

    #[btf_map]
    pub static AYA_LOGS: RingBuf<[u8; 0], { 1 << 17 }> = RingBuf::new();

    /// Set by the loader. The verifier removes the code of disabled levels as dead code.
    #[unsafe(no_mangle)]
    pub static AYA_LOG_LEVEL: Global<u8> = Global::new(0);

    #[inline(always)]
    pub fn level_enabled(level: Level) -> bool {
        level as u8 <= AYA_LOG_LEVEL.load()
    }
}

/// Logs a packet that is not forwarded: at `debug` if it is dropped, at `trace` if it passes.
///
/// This function and the next are not inlined, because nearly every packet does without them. Each is called once, so
/// that the closures in the macros are inlined into it. As functions of their own, the closures would have unnamed
/// arguments, and the kernel rejects the BTF of such an object.
#[inline(never)]
pub fn outcome(side: Side, outcome: Outcome) {
    let interface = match side {
        Side::Cluster => "eth0",
        Side::Egress => "net1",
    };
    let name = outcome.name();
    match outcome.verdict() {
        Verdict::Drop | Verdict::Reject => debug!((), "{}: drop: {}", interface, name),
        Verdict::Pass => trace!((), "{}: pass: {}", interface, name),
    }
}

/// Logs a flow that was opened.
#[inline(never)]
pub fn opened(protocol: u8, client: Ports, outside: Ports) {
    debug!(
        (),
        "flow opened: protocol {}, client port {}, NAT port {}, server port {}",
        protocol,
        client.source.number(),
        outside.source.number(),
        outside.destination.number(),
    );
}
