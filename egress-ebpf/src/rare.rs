//! The rare parts of the pipeline as functions of their own, by the kernel's name *global functions*.
//!
//! The verifier checks a global function once, whatever the state of its callers, where code in line would be checked
//! again for every way that leads there. A global function takes the context and numbers only (pointers to anything else
//! need Linux 5.13), so it reads the headers again.

use aya_ebpf::{bindings::__sk_buff, programs::TcContext};
use egress_common::{
    Change, Decision, Outcome, Side, V4, V6,
    extension::{self, Place},
    sctp, tcp,
};

use crate::{
    IPV4, IPV6, abort,
    events::{self, Slot},
    flows, fragments, icmp, mss,
    packet::Packet,
    ports, reject,
    sweep::{self, Look, Search},
    trace,
};

/// The numbers that a function gives back: 0 for success, else an outcome's number and one.
const fn to_code(result: Result<(), Outcome>) -> u32 {
    match result {
        Ok(()) => 0,
        Err(outcome) => outcome as u32 + 1,
    }
}

/// The number for a NAT port that is taken already: no outcome, as there are others.
const TAKEN: u32 = u32::MAX;

/// The number for whether a NAT port was free.
#[inline(always)]
fn free_code(result: Result<bool, Outcome>) -> u32 {
    match result {
        Ok(false) => TAKEN,
        result => to_code(result.map(|_| ())),
    }
}

#[inline(always)]
fn is_free(code: u32) -> Result<bool, Outcome> {
    match code {
        TAKEN => Ok(false),
        code => from_code(code).map(|()| true),
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

/// The word at `offset`, or [`NO_WORD`].
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn load_word(skb: *mut __sk_buff, offset: u32) -> u64 {
    match TcContext::new(skb).load::<u32>(offset as usize) {
        Ok(word) => u64::from(word),
        Err(_) => NO_WORD,
    }
}

const NO_WORD: u64 = u64::MAX;

/// The word at `offset`, wherever in the packet's buffers it is.
#[inline(always)]
pub fn load_scattered(packet: &Packet, offset: usize) -> Option<[u8; 4]> {
    match load_word(packet.skb(), offset as u32) {
        NO_WORD => None,
        word => Some((word as u32).to_ne_bytes()),
    }
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn move_sctp_crc(skb: *mut __sk_buff, old: u32, new: u32, length: u32) -> u32 {
    core::hint::black_box(skb);
    let length = length as usize & 0xffff;
    sctp::checksum_delta(u32::from_le(old), u32::from_le(new), length).to_le()
}

/// [`sctp::checksum_delta`], by a call; words as they lie in memory.
#[inline(always)]
pub fn sctp_checksum_delta(packet: &Packet, old: u32, new: u32, length: usize) -> u32 {
    move_sctp_crc(packet.skb(), old, new, length as u32)
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn sum_packet(skb: *mut __sk_buff, offset: u32, len: u32) -> u32 {
    let packet = Packet::new(TcContext::new(skb));
    // No offset is beyond that of the longest headers.
    match reject::sum(&packet, offset as usize & 0xff, len as usize) {
        Ok(sum) => u32::from(sum),
        Err(_) => u32::MAX,
    }
}

/// [`reject::sum`], by a call.
#[inline(always)]
pub fn sum(packet: &Packet, offset: usize, len: usize) -> Result<u16, Outcome> {
    match sum_packet(packet.skb(), offset as u32, len as u32) {
        u32::MAX => Err(Outcome::RewriteFailed),
        sum => Ok(sum as u16),
    }
}

/// [`egress_common::mss::find`]: 0 for none, or an outcome's number and one in the upper half.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn find_tcp_mss(skb: *mut __sk_buff, transport: u32) -> u32 {
    let packet = Packet::new(TcContext::new(skb));
    match egress_common::mss::find(&packet, transport as usize & LARGEST_OFFSET) {
        Ok(option) => (option.unwrap_or(0) & LARGEST_OFFSET) as u32,
        Err(outcome) => to_code(Err(outcome)) << 16,
    }
}

/// Headers end before; the verifier takes no larger number for an offset.
const LARGEST_OFFSET: usize = 0x7fff;

/// [`egress_common::mss::find`], by a call.
#[inline(always)]
pub fn find_segment_size(packet: &Packet, transport: usize) -> Result<Option<usize>, Outcome> {
    let found = find_tcp_mss(packet.skb(), transport as u32);
    from_code(found >> 16)?;
    // The compiler knows by now that the mask changes nothing. The verifier does not.
    match core::hint::black_box(found) as usize & LARGEST_OFFSET {
        0 => Ok(None),
        option => Ok(Some(option)),
    }
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

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn note_traced_packet(skb: *mut __sk_buff, side: u32) -> u32 {
    let packet = Packet::new(TcContext::new(skb));
    let side = to_side(side);
    match packet.ether_type() {
        IPV4 => trace::note::<V4>(&packet, side),
        IPV6 => trace::note::<V6>(&packet, side),
        _ => {}
    }
    0
}

/// Notes a packet, if somebody wants to see it: [`trace::note`].
#[inline(always)]
pub fn trace_arrival(packet: &Packet, side: Side) {
    note_traced_packet(packet.skb(), side as u32);
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn tell_of_traced_packet(skb: *mut __sk_buff, decision: u32) -> u32 {
    match Packet::new(TcContext::new(skb)).ether_type() {
        IPV4 => trace::tell::<V4>(decision),
        IPV6 => trace::tell::<V6>(decision),
        _ => {}
    }
    0
}

/// Tells what was decided for a packet, if somebody wants to see it: [`trace::tell`].
#[inline(always)]
pub fn trace_decision(packet: &Packet, decision: Decision) {
    tell_of_traced_packet(packet.skb(), decision.number());
}

#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn send_sctp_abort(skb: *mut __sk_buff) -> u32 {
    let packet = Packet::new(TcContext::new(skb));
    to_code(if packet.is_v6() {
        abort::refuse::<V6>(&packet)
    } else {
        abort::refuse::<V4>(&packet)
    })
}

/// Makes of a packet the one that tells its sender of `outcome`: [`reject::reject`], [`abort::refuse`].
#[inline(always)]
pub fn reject(packet: &Packet, side: Side, outcome: Outcome) -> Result<(), Outcome> {
    from_code(if matches!(outcome, Outcome::SctpRefused) {
        send_sctp_abort(packet.skb())
    } else {
        send_icmp_error(packet.skb(), side as u32, outcome as u32)
    })
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
    ($($family:ty: $plan:ident, $take:ident, $search:ident, $take_nth:ident, $enter:ident, $make_room:ident, $look:ident, $examine:ident,
        $translate_error:ident, $remember_fragment:ident, $call_held:ident, $translate_fragment:ident,
        $hold_fragment:ident, $note:ident, $tell:ident;)+) => {
        $(
            impl Rare for $family {
                #[inline(always)]
                fn open_flow(packet: &Packet) -> Result<(), Outcome> {
                    from_code($plan(packet.skb()))?;
                    let mut opened = from_code($take(packet.skb()));
                    if opened.is_ok() {
                        opened = from_code($enter(packet.skb()));
                    }
                    if !matches!(opened, Err(Outcome::FlowTableFull)) {
                        return opened;
                    }
                    from_code($make_room(packet.skb()))?;
                    from_code($take(packet.skb()))?;
                    from_code($enter(packet.skb()))
                }

                #[inline(always)]
                fn search_stretch(packet: &Packet, random: u32, stretch: u32) -> Result<bool, Outcome> {
                    is_free($search(packet.skb(), random, stretch))
                }

                #[inline(always)]
                fn take_nth(packet: &Packet, index: u32) -> Result<bool, Outcome> {
                    is_free($take_nth(packet.skb(), index))
                }

                #[inline(always)]
                fn look_for_room(packet: &Packet) -> Look {
                    match $look(packet.skb()) {
                        0 => Look::Nothing,
                        1 => Look::Gone,
                        2 => Look::Ended,
                        _ => Look::Kept,
                    }
                }

                #[inline(always)]
                fn examine(packet: &Packet, side: Side) -> Result<tcp::Flags, Outcome> {
                    let result = $examine(packet.skb(), side as u32);
                    from_code(result >> 8).map(|()| tcp::Flags(result as u8))
                }

                #[inline(always)]
                fn remember_fragment(packet: &Packet, side: Side) -> Result<(), Outcome> {
                    from_code($remember_fragment(packet.skb(), side as u32))?;
                    from_code($call_held(packet.skb(), side as u32))
                }

                #[inline(always)]
                fn translate_fragment(packet: &Packet, side: Side) -> Result<(), Outcome> {
                    match from_code($translate_fragment(packet.skb(), side as u32)) {
                        Err(Outcome::FragmentHeld) => from_code($hold_fragment(packet.skb(), side as u32)),
                        result => result,
                    }
                }

                #[inline(always)]
                fn note(slot: Slot) -> bool {
                    $note(slot as u32) != 0
                }

                #[inline(always)]
                fn tell(slot: Slot, change: Change) {
                    $tell(slot as u32, change as u32);
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
            extern "C" fn $call_held(skb: *mut __sk_buff, side: u32) -> u32 {
                to_code(fragments::call_held::<$family>(&Packet::new(TcContext::new(skb)), to_side(side)))
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $hold_fragment(skb: *mut __sk_buff, side: u32) -> u32 {
                to_code(fragments::hold::<$family>(&Packet::new(TcContext::new(skb)), to_side(side)))
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $translate_fragment(skb: *mut __sk_buff, side: u32) -> u32 {
                to_code(fragments::translate::<$family>(&Packet::new(TcContext::new(skb)), to_side(side)))
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $note(slot: u32) -> u32 {
                u32::from(events::note::<$family>(slot))
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $tell(slot: u32, change: u32) -> u32 {
                events::tell::<$family>(slot, change);
                0
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $plan(skb: *mut __sk_buff) -> u32 {
                to_code(flows::plan::<$family>(&Packet::new(TcContext::new(skb))))
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $take(skb: *mut __sk_buff) -> u32 {
                to_code(ports::take::<$family>(&Packet::new(TcContext::new(skb))))
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $enter(skb: *mut __sk_buff) -> u32 {
                // Not needed, but it has to be passed: the first argument is the context.
                core::hint::black_box(skb);
                to_code(flows::enter::<$family>())
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $search(skb: *mut __sk_buff, random: u32, stretch: u32) -> u32 {
                let packet = Packet::new(TcContext::new(skb));
                free_code(ports::search_stretch::<$family>(&packet, random, stretch))
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $take_nth(skb: *mut __sk_buff, index: u32) -> u32 {
                core::hint::black_box(skb);
                free_code(ports::take_nth::<$family>(index))
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $make_room(skb: *mut __sk_buff) -> u32 {
                to_code(sweep::make_room::<$family>(&Packet::new(TcContext::new(skb))))
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $look(skb: *mut __sk_buff) -> u32 {
                core::hint::black_box(skb);
                sweep::look::<$family>(Search::Expendable) as u32
            }

            #[inline(never)]
            #[unsafe(no_mangle)]
            extern "C" fn $examine(skb: *mut __sk_buff, side: u32) -> u32 {
                match flows::examine::<$family>(&Packet::new(TcContext::new(skb)), to_side(side)) {
                    Ok(flags) => u32::from(flags.0),
                    Err(outcome) => to_code(Err(outcome)) << 8,
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
    V4: plan_flow_v4, take_nat_port_v4, search_nat_port_v4, try_nat_port_v4, enter_flow_v4, make_room_v4, look_for_room_v4, examine_v4,
        translate_icmp_error_v4, remember_fragment_v4, call_held_fragments_v4, translate_fragment_v4,
        hold_fragment_v4, note_flow_v4, tell_of_flow_v4;
    V6: plan_flow_v6, take_nat_port_v6, search_nat_port_v6, try_nat_port_v6, enter_flow_v6, make_room_v6, look_for_room_v6, examine_v6,
        translate_icmp_error_v6, remember_fragment_v6, call_held_fragments_v6, translate_fragment_v6,
        hold_fragment_v6, note_flow_v6, tell_of_flow_v6;
}

/// The rare parts, by family.
pub trait Rare {
    /// Opens a flow for a client's packet that belongs to none: [`flows::plan`], [`ports::take`] and [`flows::enter`]; in a
    /// full table [`sweep::make_room`], and once more.
    fn open_flow(packet: &Packet) -> Result<(), Outcome>;

    /// Looks for a NAT port: [`ports::search_stretch`].
    fn search_stretch(packet: &Packet, random: u32, stretch: u32) -> Result<bool, Outcome>;

    /// Tries to take a NAT port: [`ports::take_nth`].
    fn take_nth(packet: &Packet, index: u32) -> Result<bool, Outcome>;

    /// Looks at one flow that may have to make room: [`sweep::look`].
    fn look_for_room(packet: &Packet) -> Look;

    /// What a packet that begins or ends a connection does to its flow: [`flows::examine`].
    fn examine(packet: &Packet, side: Side) -> Result<tcp::Flags, Outcome>;

    /// Remembers a first fragment, and calls those that were held for it: [`fragments::remember`],
    /// [`fragments::call_held`].
    fn remember_fragment(packet: &Packet, side: Side) -> Result<(), Outcome>;

    /// Translates a later fragment, or holds it until its first one comes: [`fragments::translate`], [`fragments::hold`].
    fn translate_fragment(packet: &Packet, side: Side) -> Result<(), Outcome>;

    /// Notes what the table has of a flow: [`events::note`].
    fn note(slot: Slot) -> bool;

    /// Hands an event to those who listen: [`events::tell`].
    fn tell(slot: Slot, change: Change);

    /// Translates an ICMP error that arrived on `side`: [`icmp::translate_error`].
    fn translate_error(packet: &Packet, side: Side) -> Result<(), Outcome>;
}
