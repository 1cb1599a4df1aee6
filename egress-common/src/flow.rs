//! Flows: a connection as the router sees it.

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

/// What happens to a packet: its new addresses and ports, and what that does to its checksums.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation<A> {
    /// The addresses that the packet leaves with.
    pub addresses: Pair<A>,
    /// The ports that the packet leaves with.
    pub ports: Ports,
    /// What the new addresses add to the IPv4 header's checksum, and to a checksum over the pseudo header.
    pub address_delta: u16,
    /// What the new ports add to the TCP or UDP checksum.
    ///
    /// It is kept apart from [`Self::address_delta`] because a device that completes a checksum (`CHECKSUM_PARTIAL`)
    /// sums up the ports itself, but has to be given the pseudo header.
    pub port_delta: u16,
}

impl<A: Address> Translation<A> {
    /// The translation of packets with `tuple` to these addresses and ports.
    #[inline(always)]
    pub fn new(tuple: &Tuple<A>, addresses: Pair<A>, ports: Ports) -> Self {
        Self {
            addresses,
            ports,
            address_delta: checksum::delta(tuple.addresses.sum(), addresses.sum()),
            port_delta: checksum::delta(tuple.ports.sum(), ports.sum()),
        }
    }

    /// The tuple that an answer to the translated packet arrives with: the key of the flow's other entry.
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

/// One direction of a flow: the value of `FLOWS_V4` and `FLOWS_V6`.
///
/// A flow has two entries, one for each direction, and each finds the other by [`Translation::peer`].
/// Times are `CLOCK_MONOTONIC` in nanoseconds.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow<A> {
    /// What this direction's packets become.
    pub translation: Translation<A>,
    /// The rule that opened the flow: index in the spec and in `RULE_COUNTERS`.
    pub rule: u32,
    /// Which TCP flags, or chunks of SCTP, this direction has shown so far.
    pub seen: Seen,
    padding: u8,
    padding_2: u16,
    /// By what the other direction's end is known for genuine: what this direction has acknowledged last (TCP), or the tag
    /// that it has announced (SCTP); network byte order, 0 if nothing was seen.
    pub ack_or_tag: u32,
    /// Whom this direction's packets are handed to, if that is known.
    pub next_hop: NextHopRef,
    /// When the flow was opened.
    pub opened_ns: u64,
    /// When this direction's last packet passed; at most a second behind.
    pub last_seen_ns: u64,
    /// What this direction has carried.
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
// SAFETY: `bytemuck::Pod` asks for more than aya's.
unsafe impl<A: Pod> aya::Pod for Flow<A> {}

impl<A: Address> Flow<A> {
    /// A flow's entry before its first packet.
    pub fn new(translation: Translation<A>, rule: u32, now_ns: u64) -> Self {
        let mut flow = Self {
            translation,
            ..Self::zeroed()
        };
        flow.open(rule, now_ns);
        flow
    }

    /// Makes this, in its place, an entry before its first packet; the translation stays.
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

/// What a flow is up to, seen from both of its entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FlowState {
    /// A TCP connection.
    Tcp(tcp::State),
    /// An SCTP association.
    Sctp(sctp::State),
    /// UDP.
    Udp(Exchange),
    /// Echo requests.
    Echo(Exchange),
}

/// How far an exchange of datagrams has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// In one direction only, so far.
    Unreplied,
    /// In both directions, such as a question and its answer.
    Replied,
    /// In both directions, and it goes on.
    Assured,
}

impl Exchange {
    /// What goes on for longer than this is more than a question and its answer (`nf_conntrack_proto_udp.c`).
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
    /// The state of the flow whose two entries these are.
    #[inline(always)]
    pub const fn of<A>(protocol: u8, original: &Flow<A>, reply: &Flow<A>) -> Self {
        match protocol {
            protocol::TCP => Self::Tcp(tcp::State::of(original.seen, reply.seen)),
            protocol::SCTP => Self::Sctp(sctp::State::of(original.seen, reply.seen)),
            protocol::UDP => Self::Udp(Exchange::of(original, reply)),
            _ => Self::Echo(Exchange::of(original, reply)),
        }
    }

    /// How long a flow in this state lives after its last packet.
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

    /// Whether the flow may be ended before its time, to make room in a full table: it was only begun, or is over.
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

    /// Whether its ends have closed it, or one has broken it off.
    pub const fn is_over(self) -> bool {
        match self {
            Self::Tcp(state) => matches!(state, tcp::State::TimeWait | tcp::State::Close),
            Self::Sctp(state) => state.is_closing(),
            Self::Udp(_) | Self::Echo(_) => false,
        }
    }

    /// Whether a request to open it anew finds it at its end.
    #[inline(always)]
    pub const fn is_closing(self) -> bool {
        match self {
            Self::Tcp(state) => state.is_closing(),
            Self::Sctp(state) => state.is_closing(),
            Self::Udp(_) | Self::Echo(_) => false,
        }
    }

    /// The state's name, as conntrack writes it where it has one.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp(state) => state.name(),
            Self::Sctp(state) => state.name(),
            Self::Udp(exchange) | Self::Echo(exchange) => exchange.name(),
        }
    }
}

impl<A> Flow<A> {
    /// When the last packet of either direction passed.
    #[inline(always)]
    const fn last_seen_ns(original: &Self, reply: &Self) -> u64 {
        if original.last_seen_ns > reply.last_seen_ns {
            original.last_seen_ns
        } else {
            reply.last_seen_ns
        }
    }

    /// For how long the flow with these two entries has been idle.
    #[inline(always)]
    pub const fn idle_ns(original: &Self, reply: &Self, now_ns: u64) -> u64 {
        // The coarse clock of the kernel half may be a tick ahead of the reader's.
        now_ns.saturating_sub(Self::last_seen_ns(original, reply))
    }

    /// Whether a packet that would end the flow comes from the end that it claims to come from: see
    /// [`tcp::is_credible_end`] and [`sctp::is_credible_end`].
    ///
    /// `sender` is the entry of the packet's own direction, `receiver` the other; `sequence_or_tag` is the packet's sequence
    /// number or verification tag, in network byte order.
    #[inline(always)]
    pub const fn is_credible_end(
        protocol: u8,
        sequence_or_tag: u32,
        sender: &Self,
        receiver: &Self,
    ) -> bool {
        match protocol {
            // Who has acknowledged nothing yet is told of the end by an answer to its SYN.
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
    /// Whether the flow with these two entries has been idle for longer than its state allows.
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
