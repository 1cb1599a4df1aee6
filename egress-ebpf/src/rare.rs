//! The rare parts of the pipeline as functions of their own, by the kernel's name *global functions*.
//!
//! The verifier checks a global function once, whatever the state of its callers, where code in line would be checked
//! again for every way that leads there. A global function takes the context and numbers only (pointers to anything else
//! need Linux 5.13), so it reads the headers again.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use egress_common::{Outcome, Side, V4, V6};

use crate::{flows, icmp, packet::Packet};

/// The numbers that a function gives back: 0 for success, else an outcome's number and one.
const fn to_code(result: Result<(), Outcome>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(outcome) => outcome as u32 + 1,
    }
}

#[inline(always)]
fn from_code(code: u32) -> Result<(), Outcome> {
    match code {
        0 => Ok(()),
        // The verifier does not know that nothing else comes back.
        code => Err(Outcome::from_number(code - 1).unwrap_or(Outcome::Malformed)),
    }
}

macro_rules! global_functions {
    ($($family:ty: $open:ident, $translate_error:ident;)+) => {
        $(
            impl Rare for $family {
                #[inline(always)]
                fn open_flow(packet: &Packet) -> Result<(), Outcome> {
                    from_code($open(packet.skb()))
                }

                #[inline(always)]
                fn translate_error(packet: &Packet, side: Side) -> Result<(), Outcome> {
                    from_code($translate_error(packet.skb(), side as u32))
                }
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $open(skb: *mut __sk_buff) -> u32 {
                to_code(flows::open::<$family>(&Packet::new(TcContext::new(skb))))
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $translate_error(skb: *mut __sk_buff, side: u32) -> u32 {
                let side = if side == Side::Cluster as u32 { Side::Cluster } else { Side::Egress };
                to_code(icmp::translate_error::<$family>(&Packet::new(TcContext::new(skb)), side))
            }
        )+
    };
}

global_functions! {
    V4: open_flow_v4, translate_icmp_error_v4;
    V6: open_flow_v6, translate_icmp_error_v6;
}

/// The rare parts, by family.
pub trait Rare {
    /// Opens a flow for a client's packet that belongs to none: [`flows::open`].
    fn open_flow(packet: &Packet) -> Result<(), Outcome>;

    /// Translates an ICMP error that arrived on `side`: [`icmp::translate_error`].
    fn translate_error(packet: &Packet, side: Side) -> Result<(), Outcome>;
}
