//! Log records for a person who debugs, off unless the loader asks for a level.
//!
//! `aya-log-ebpf` declares its ring buffer the old way, which makes libbpf (and so `bpftool prog loadall`) refuse the
//! whole object. Its macros are used as they are; what they expand to is given here, with the ring buffer declared by
//! BTF.

use aya_log_ebpf_macros::{debug, trace};
use egress_common::{Outcome, Ports, Side, Verdict};

/// What `aya-log-ebpf`'s macros expect in the crate `aya_log_ebpf`.
#[doc(hidden)]
pub mod macro_support {
    use aya_ebpf::{Global, btf_maps::RingBuf, macros::btf_map};
    pub use aya_log_common::{
        Argument, DefaultFormatter, DisplayHint, Field, Header, IpFormatter, Level, LogValueLength,
    };

    #[btf_map]
    pub static AYA_LOGS: RingBuf<[u8; 0], { 1 << 17 }> = RingBuf::new();

    /// Set by the loader. A disabled level is dead code to the verifier, which removes it.
    #[unsafe(no_mangle)]
    pub static AYA_LOG_LEVEL: Global<u8> = Global::new(0);

    #[inline(always)]
    pub fn level_enabled(level: Level) -> bool {
        level as u8 <= AYA_LOG_LEVEL.load()
    }
}

/// A packet that is not forwarded: at `debug` if it is dropped, at `trace` if the pod's own stack gets it.
///
/// Functions of their own, as nearly every packet goes without them; and called once each, so that the closures in the
/// macros are inlined: as functions they would have nameless arguments, for which the kernel refuses the object's BTF.
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

/// A flow that was opened.
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
