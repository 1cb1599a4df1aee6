//! Flows, their entries and their states.

use bytemuck::{Pod, Zeroable};

use crate::{
    checksum,
    counters::Traffic,
    network::{Address, Ipv4Address, Ipv6Address, Pair, Ports, protocol},
    next_hop::NextHopRef,
    sctp,
    tcp::{self, Flags, Seen},
    timeouts::Timeouts,
    tuple::{Side, Tuple},
};

/// The addresses and ports that a packet leaves with, and the checksum deltas that follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation<A> {
    /// The addresses that the packet leaves with.
    pub addresses: Pair<A>,
    /// The ports that the packet leaves with.
    pub ports: Ports,
    /// The delta that the new addresses add to the IPv4 header checksum and to a checksum that covers the pseudo
    /// header.
    pub address_delta: u16,
    /// The delta that the new ports add to the TCP or UDP checksum.
    ///
    /// It is separate from [`Self::address_delta`] because a device that completes a checksum (`CHECKSUM_PARTIAL`) sums
    /// the ports itself, but relies on the pseudo header's sum in the packet.
    pub port_delta: u16,
}

impl<A: Address> Translation<A> {
    /// Translates packets with `tuple` to these addresses and ports.
    #[inline(always)]
    pub fn new(tuple: &Tuple<A>, addresses: Pair<A>, ports: Ports) -> Self {
        Self {
            addresses,
            ports,
            address_delta: checksum::delta(tuple.addresses.sum(), addresses.sum()),
            port_delta: checksum::delta(tuple.ports.sum(), ports.sum()),
        }
    }

    /// The tuple of an answer to the translated packet, which is the key of the flow's other entry.
    #[inline(always)]
    pub fn peer(&self, side: Side, protocol: u8) -> Tuple<A> {
        Tuple::new(
            side.opposite(),
            protocol,
            self.addresses.swapped(),
            self.ports.swapped(),
        )
    }
}

/// A flow entry, that is, one direction of a flow: the value of `FLOWS_V4` and `FLOWS_V6`.
///
/// [`Translation::peer`] of one entry is the key of the other. Times are `CLOCK_MONOTONIC` in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<A> {
    /// The translation of this direction's packets.
    pub translation: Translation<A>,
    /// The id of the rule that opened the flow: its index in `RULE_COUNTERS`.
    pub rule: u32,
    /// The TCP flags or SCTP chunks that this direction has shown so far.
    pub seen: Seen,
    padding: u8,
    padding_2: u16,
    /// The number that identifies a genuine end from the other direction: this direction's last acknowledgment (TCP),
    /// or the verification tag that it announced (SCTP). Network byte order; 0 if none was seen.
    pub ack_or_tag: u32,
    /// The cached next hop of this direction's packets, or `NONE` to force a kernel lookup.
    pub next_hop: NextHopRef,
    /// When the flow was opened.
    pub opened_ns: u64,
    /// When this direction's last packet passed; up to one second behind.
    pub last_seen_ns: u64,
    /// The packets and bytes of this direction.
    pub traffic: Traffic,
}

const _: () = assert!(size_of::<Translation<Ipv4Address>>() == 16);
const _: () = assert!(size_of::<Translation<Ipv6Address>>() == 40);
const _: () = assert!(size_of::<Flow<Ipv4Address>>() == 64);
const _: () = assert!(size_of::<Flow<Ipv6Address>>() == 88);

// SAFETY: all fields are zeroable.
unsafe impl<A: Zeroable> Zeroable for Translation<A> {}
// SAFETY: `repr(C)` without padding, as the size assertions prove for both address types.
unsafe impl<A: Pod> Pod for Translation<A> {}
// SAFETY: all fields are zeroable.
unsafe impl<A: Zeroable> Zeroable for Flow<A> {}
// SAFETY: `repr(C)` with explicit padding, as the size assertions prove for both address types.
unsafe impl<A: Pod> Pod for Flow<A> {}
#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`, which requires more than aya's `Pod`.
unsafe impl<A: Pod> aya::Pod for Flow<A> {}

impl<A: Address> Flow<A> {
    /// A flow entry before its first packet.
    pub fn new(translation: Translation<A>, rule: u32, now_ns: u64) -> Self {
        let mut flow = Self {
            translation,
            ..Self::zeroed()
        };
        flow.open(rule, now_ns);
        flow
    }

    /// Resets the entry in place to that of a new flow. The translation stays.
    #[inline(always)]
    pub const fn open(&mut self, rule: u32, now_ns: u64) {
        self.rule = rule;
        self.seen = Seen::NOTHING;
        self.padding = 0;
        self.padding_2 = 0;
        self.ack_or_tag = 0;
        self.next_hop = NextHopRef::NONE;
        self.opened_ns = now_ns;
        self.last_seen_ns = now_ns;
        self.traffic = Traffic {
            packets: 0,
            bytes: 0,
        };
    }
}

/// The state of a flow, derived from both entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// A TCP connection.
    Tcp(tcp::State),
    /// An SCTP association.
    Sctp(sctp::State),
    /// UDP.
    Udp(Exchange),
    /// ICMP or ICMPv6 echo.
    Echo(Exchange),
}

/// The progress of a datagram exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// Packets in one direction only.
    Unreplied,
    /// Packets in both directions, such as a query and its answer.
    Replied,
    /// Packets in both directions for longer than two seconds.
    Assured,
}

impl Exchange {
    /// An exchange that lasts longer than this is more than a query and its answer (`nf_conntrack_proto_udp.c`).
    const ASSURED_NS: u64 = 2_000_000_000;

    #[inline(always)]
    const fn of<A>(original: &Flow<A>, reply: &Flow<A>) -> Self {
        if reply.traffic.packets == 0 {
            Self::Unreplied
        } else if Flow::last_seen_ns(original, reply).saturating_sub(original.opened_ns)
            < Self::ASSURED_NS
        {
            Self::Replied
        } else {
            Self::Assured
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Unreplied => "UNREPLIED",
            Self::Replied => "REPLIED",
            Self::Assured => "ASSURED",
        }
    }
}

impl FlowState {
    /// Derives the state of a flow from its two entries.
    #[inline(always)]
    pub const fn of<A>(protocol: u8, original: &Flow<A>, reply: &Flow<A>) -> Self {
        match protocol {
            protocol::TCP => Self::Tcp(tcp::State::of(original.seen, reply.seen)),
            protocol::SCTP => Self::Sctp(sctp::State::of(original.seen, reply.seen)),
            protocol::UDP => Self::Udp(Exchange::of(original, reply)),
            _ => Self::Echo(Exchange::of(original, reply)),
        }
    }

    /// The idle timeout of this state in nanoseconds.
    #[inline(always)]
    pub const fn timeout_ns(self, timeouts: &Timeouts) -> u64 {
        let seconds = match self {
            Self::Tcp(state) => timeouts.tcp(state),
            Self::Sctp(state) => timeouts.sctp(state),
            Self::Udp(Exchange::Assured) => timeouts.udp_stream,
            Self::Udp(Exchange::Unreplied | Exchange::Replied) => timeouts.udp,
            Self::Echo(_) => timeouts.icmp,
        };
        seconds as u64 * 1_000_000_000
    }

    /// Returns `true` if the flow may be evicted from a full table: it is not established yet, or has ended.
    #[inline(always)]
    pub const fn is_expendable(self) -> bool {
        match self {
            Self::Tcp(state) => {
                state.is_embryonic() || matches!(state, tcp::State::TimeWait | tcp::State::Close)
            }
            Self::Sctp(state) => state.is_embryonic() || matches!(state, sctp::State::Closed),
            Self::Udp(exchange) | Self::Echo(exchange) => matches!(exchange, Exchange::Unreplied),
        }
    }

    /// Returns `true` if both ends have closed the flow, or one has reset it.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Tcp(state) => matches!(state, tcp::State::TimeWait | tcp::State::Close),
            Self::Sctp(state) => state.is_closing(),
            Self::Udp(_) | Self::Echo(_) => false,
        }
    }

    /// Returns `true` if a request for a new connection may reopen the flow, because this one has ended or is about to.
    #[inline(always)]
    pub const fn is_closing(self) -> bool {
        match self {
            Self::Tcp(state) => state.is_closing(),
            Self::Sctp(state) => state.is_closing(),
            Self::Udp(_) | Self::Echo(_) => false,
        }
    }

    /// The state's name: conntrack's, if it has one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp(state) => state.name(),
            Self::Sctp(state) => state.name(),
            Self::Udp(exchange) | Self::Echo(exchange) => exchange.name(),
        }
    }
}

impl<A> Flow<A> {
    /// When the last packet passed in either direction.
    #[inline(always)]
    const fn last_seen_ns(original: &Self, reply: &Self) -> u64 {
        if original.last_seen_ns > reply.last_seen_ns {
            original.last_seen_ns
        } else {
            reply.last_seen_ns
        }
    }

    /// The time since the last packet of the flow with these two entries.
    #[inline(always)]
    pub const fn idle_ns(original: &Self, reply: &Self, now_ns: u64) -> u64 {
        // The kernel half's coarse clock may be a tick ahead of the reader's.
        now_ns.saturating_sub(Self::last_seen_ns(original, reply))
    }

    /// Returns `true` if a packet that ends the flow is credible; see [`tcp::is_credible_end`] and
    /// [`sctp::is_credible_end`].
    ///
    /// `sender` is the entry of the packet's own direction, `receiver` the other one. `sequence_or_tag` is the packet's
    /// sequence number or verification tag in network byte order.
    #[inline(always)]
    pub const fn is_credible_end(
        protocol: u8,
        sequence_or_tag: u32,
        sender: &Self,
        receiver: &Self,
    ) -> bool {
        match protocol {
            // If the receiver has acknowledged nothing yet, this is an answer to its SYN.
            protocol::TCP => {
                !receiver.seen.any(Flags::ACK)
                    || tcp::is_credible_end(
                        u32::from_be(sequence_or_tag),
                        u32::from_be(receiver.ack_or_tag),
                    )
            }
            protocol::SCTP => {
                sctp::is_credible_end(sequence_or_tag, sender.ack_or_tag, receiver.ack_or_tag)
            }
            _ => true,
        }
    }
}

impl<A: Address> Flow<A> {
    /// Returns `true` if the flow with these two entries has been idle for longer than the timeout of its state.
    pub fn is_expired(
        protocol: u8,
        original: &Self,
        reply: &Self,
        timeouts: &Timeouts,
        now_ns: u64,
    ) -> bool {
        let timeout_ns = FlowState::of(protocol, original, reply).timeout_ns(timeouts);
        Self::idle_ns(original, reply, now_ns) > timeout_ns
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::network::Port;

    fn address() -> impl Strategy<Value = Ipv4Address> {
        any::<[u8; 4]>().prop_map(|octets| Ipv4Address { octets })
    }

    fn addresses() -> impl Strategy<Value = Pair<Ipv4Address>> {
        (address(), address()).prop_map(|(source, destination)| Pair {
            source,
            destination,
        })
    }

    fn ports() -> impl Strategy<Value = Ports> {
        any::<[u16; 2]>().prop_map(|[source, destination]| Ports {
            source: Port::new(source),
            destination: Port::new(destination),
        })
    }

    proptest! {
        #[test]
        fn the_two_entries_of_a_flow_find_each_other(from in addresses(), to in addresses(), a in ports(), b in ports()) {
            let tuple = Tuple::new(Side::Cluster, protocol::TCP, from, a);
            let there = Translation::new(&tuple, to, b);
            let reply = there.peer(Side::Cluster, protocol::TCP);
            let back = Translation::new(&reply, from.swapped(), a.swapped());
            prop_assert_eq!(back.peer(Side::Egress, protocol::TCP), tuple);
        }
    }

    #[test]
    fn a_flow_expires_only_when_both_directions_are_idle() {
        let address = Ipv4Address {
            octets: [10, 0, 0, 1],
        };
        let pair = Pair {
            source: address,
            destination: address,
        };
        let ports = Ports {
            source: Port::new(1),
            destination: Port::new(2),
        };
        let tuple = Tuple::new(Side::Cluster, protocol::UDP, pair, ports);
        let original = Flow::new(Translation::new(&tuple, pair, ports), 0, 0);
        let mut reply = original;
        let timeouts = Timeouts::default();
        let after = |seconds: u64| seconds * 1_000_000_000;
        let expired = |reply: &Flow<_>, now| {
            Flow::is_expired(protocol::UDP, &original, reply, &timeouts, now)
        };

        assert!(!expired(&reply, after(30)));
        assert!(expired(&reply, after(31)));
        reply.traffic.packets = 1;
        reply.last_seen_ns = after(1);
        assert!(expired(&reply, after(32)), "a question and its answer");
        reply.last_seen_ns = after(10);
        assert!(!expired(&reply, after(130)));
        assert!(expired(&reply, after(131)));
        assert!(
            !expired(&reply, 0),
            "a clock that is behind the kernel's expires nothing"
        );
    }
}
