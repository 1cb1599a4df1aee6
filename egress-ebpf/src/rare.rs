//! The rare parts of the pipeline as functions of their own, by the kernel's name *global functions*.
//!
//! The verifier checks a global function once, whatever the state of its callers, where code in line would be checked
//! again for every way that leads there. A global function takes the context and numbers only (pointers to anything else
//! need Linux 5.13), so it reads the headers again.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use egress_common::{
    Outcome, Side, V4, V6,
    extension::{self, Place},
};

use crate::{flows, fragments, icmp, mss, packet::Packet, ports, reject};

/// The numbers that a function gives back: 0 for success, else an outcome's number and one.
const fn to_code(result: Result<(), Outcome>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(outcome) => outcome as u32 + 1,
    }
}

/// The number for a NAT port that is taken already: no outcome, as there are others.
const TAKEN: u32 = u32::MAX;

#[inline(always)]
fn from_code(code: u32) -> Result<(), Outcome> {
    match code {
        0 => Ok(()),
        // The verifier does not know that nothing else comes back.
        code => Err(Outcome::from_number(code - 1).unwrap_or(Outcome::Malformed)),
    }
}

/// [`extension::walk`] from the place that `from` stands for; on success the place that was reached, else an outcome's
/// number and one, shifted out of a place's bits.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn skip_ipv6_extensions(skb: *mut __sk_buff, from: u32) -> u64 {
    match extension::walk(&Packet::new(TcContext::new(skb)), Place::from_bits(from)) {
        Ok(place) => u64::from(place.to_bits()),
        Err(outcome) => (outcome as u64 + 1) << 32,
    }
}

/// [`extension::walk`], by a call.
#[inline(always)]
pub fn skip_extensions(packet: &Packet, place: Place) -> Result<Place, Outcome> {
    let reached = skip_ipv6_extensions(packet.skb(), place.to_bits());
    from_code((reached >> 32) as u32)?;
    Ok(Place::from_bits(reached as u32))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn clamp_tcp_mss(skb: *mut __sk_buff) -> u32 {
    let packet = Packet::new(TcContext::new(skb));
    to_code(if packet.is_v6() {
        mss::clamp::<V6>(&packet)
    } else {
        mss::clamp::<V4>(&packet)
    })
}

/// Clamps the segment size of a TCP segment with SYN: [`mss::clamp`].
#[inline(always)]
pub fn clamp_segment_size(packet: &Packet) -> Result<(), Outcome> {
    from_code(clamp_tcp_mss(packet.skb()))
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn send_icmp_error(skb: *mut __sk_buff, side: u32, outcome: u32) -> u32 {
    let packet = Packet::new(TcContext::new(skb));
    let Some(outcome) = Outcome::from_number(outcome) else {
        return 1;
    };
    let side = to_side(side);
    to_code(if packet.is_v6() {
        reject::reject::<V6>(&packet, side, outcome)
    } else {
        reject::reject::<V4>(&packet, side, outcome)
    })
}

/// Makes of a packet the error that tells its sender of `outcome`: [`reject::reject`].
#[inline(always)]
pub fn reject(packet: &Packet, side: Side, outcome: Outcome) -> Result<(), Outcome> {
    from_code(send_icmp_error(packet.skb(), side as u32, outcome as u32))
}

/// The side with this number, which the verifier does not know to be one of two.
#[inline(always)]
const fn to_side(side: u32) -> Side {
    if side == Side::Cluster as u32 {
        Side::Cluster
    } else {
        Side::Egress
    }
}

macro_rules! global_functions {
    ($($family:ty: $plan:ident, $open:ident, $take_candidate:ident, $translate_error:ident,
        $remember_fragment:ident, $translate_fragment:ident;)+) => {
        $(
            impl Rare for $family {
                #[inline(always)]
                fn open_flow(packet: &Packet) -> Result<(), Outcome> {
                    from_code($plan(packet.skb()))?;
                    from_code($open(packet.skb()))
                }

                #[inline(always)]
                fn take_candidate(packet: &Packet, random: u32, attempt: u32) -> Result<bool, Outcome> {
                    match $take_candidate(packet.skb(), random, attempt) {
                        TAKEN => Ok(false),
                        code => from_code(code).map(|()| true),
                    }
                }

                #[inline(always)]
                fn remember_fragment(packet: &Packet, side: Side) -> Result<(), Outcome> {
                    from_code($remember_fragment(packet.skb(), side as u32))
                }

                #[inline(always)]
                fn translate_fragment(packet: &Packet, side: Side) -> Result<(), Outcome> {
                    from_code($translate_fragment(packet.skb(), side as u32))
                }

                #[inline(always)]
                fn translate_error(packet: &Packet, side: Side) -> Result<(), Outcome> {
                    from_code($translate_error(packet.skb(), side as u32))
                }
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $remember_fragment(skb: *mut __sk_buff, side: u32) -> u32 {
                to_code(fragments::remember::<$family>(&Packet::new(TcContext::new(skb)), to_side(side)))
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $translate_fragment(skb: *mut __sk_buff, side: u32) -> u32 {
                to_code(fragments::translate::<$family>(&Packet::new(TcContext::new(skb)), to_side(side)))
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $plan(skb: *mut __sk_buff) -> u32 {
                to_code(flows::plan::<$family>(&Packet::new(TcContext::new(skb))))
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $open(skb: *mut __sk_buff) -> u32 {
                to_code(flows::open::<$family>(&Packet::new(TcContext::new(skb))))
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $take_candidate(skb: *mut __sk_buff, random: u32, attempt: u32) -> u32 {
                // Not needed, but it has to be passed: the first argument is the context.
                core::hint::black_box(skb);
                match ports::take_candidate::<$family>(random, attempt) {
                    Ok(false) => TAKEN,
                    result => to_code(result.map(|_| ())),
                }
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $translate_error(skb: *mut __sk_buff, side: u32) -> u32 {
                let side = to_side(side);
                to_code(icmp::translate_error::<$family>(&Packet::new(TcContext::new(skb)), side))
            }
        )+
    };
}

global_functions! {
    V4: plan_flow_v4, open_flow_v4, take_nat_port_v4, translate_icmp_error_v4,
        remember_fragment_v4, translate_fragment_v4;
    V6: plan_flow_v6, open_flow_v6, take_nat_port_v6, translate_icmp_error_v6,
        remember_fragment_v6, translate_fragment_v6;
}

/// The rare parts, by family.
pub trait Rare {
    /// Opens a flow for a client's packet that belongs to none: [`flows::plan`], then [`flows::open`].
    fn open_flow(packet: &Packet) -> Result<(), Outcome>;

    /// Tries to take a NAT port: [`ports::take_candidate`].
    fn take_candidate(packet: &Packet, random: u32, attempt: u32) -> Result<bool, Outcome>;

    /// Remembers a first fragment: [`fragments::remember`].
    fn remember_fragment(packet: &Packet, side: Side) -> Result<(), Outcome>;

    /// Translates a later fragment: [`fragments::translate`].
    fn translate_fragment(packet: &Packet, side: Side) -> Result<(), Outcome>;

    /// Translates an ICMP error that arrived on `side`: [`icmp::translate_error`].
    fn translate_error(packet: &Packet, side: Side) -> Result<(), Outcome>;
}
