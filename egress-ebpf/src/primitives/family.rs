//! One trait for IPv4 and IPv6: a family's maps, and writing its header.

use core::mem::offset_of;

use egress_common::{
    Bytes as _, ETHERNET_HEADER_LEN, Family, Ipv4Address, Ipv4Header, Ipv6Address, Ipv6Header,
    Outcome, Pair, RuleSet, V4, V6, checksum, protocol,
};

use super::{
    maps::{
        self, AddressMap, ExhaustedMap, FlowMap, FragmentMap, HeldMap, RouteMap, RuleMap,
        SweepQueue, UnresolvedMap,
    },
    packet::Packet,
    scratch::{EventBuffer, EventSlot, TempFlow, TraceBuffer},
};

/// What the kernel half needs from a family besides parsing.
pub trait KernelFamily: Family {
    fn flows() -> &'static FlowMap<Self::Address>;
    fn rules() -> &'static RuleMap<Self::Address>;
    fn addresses() -> &'static AddressMap<Self::Address>;
    fn fragments() -> &'static FragmentMap<Self::Address>;
    fn held() -> &'static HeldMap<Self::Address>;
    fn routes() -> &'static RouteMap<Self::Address>;
    fn unresolved() -> &'static UnresolvedMap<Self::Address>;
    fn exhausted() -> &'static ExhaustedMap<Self::Address>;
    fn sweep_queue() -> &'static SweepQueue<Self::Address>;

    /// This CPU's scratch for a flow that is being opened.
    ///
    /// # Errors
    ///
    /// [`Outcome::NotConfigured`] if the map has no such element, which does not happen.
    fn temp_flow() -> Result<&'static mut TempFlow<Self::Address>, Outcome>;

    /// This CPU's scratch for a flow event.
    fn temp_event(slot: EventSlot) -> Option<&'static mut EventBuffer<Self::Address>>;

    /// This CPU's scratch for a traced packet.
    fn temp_trace() -> Option<&'static mut TraceBuffer<Self::Address>>;

    /// The reserved address.
    fn reserved(rules: &RuleSet) -> Self::Address;

    /// The fallback's server.
    fn fallback(rules: &RuleSet) -> Self::Address;

    /// Writes new addresses into the IP header at `offset`, and updates its checksum by `delta`.
    fn rewrite_addresses(
        packet: &Packet,
        offset: usize,
        addresses: Pair<Self::Address>,
        delta: u16,
    ) -> Result<(), Outcome>;

    /// Decrements the time to live or hop limit, which must be above 1.
    fn decrement_ttl(packet: &Packet) -> Result<(), Outcome>;

    /// Writes the IP header of a packet of the router's own. `len` is the packet's length in bytes, header included.
    fn store_header(
        packet: &Packet,
        addresses: Pair<Self::Address>,
        protocol: u8,
        len: usize,
    ) -> Result<(), Outcome>;
}

/// The accessors of a family's maps.
macro_rules! maps_of {
    ($address:ty, scratch: $flow:ident, $event:ident, $trace:ident; $($accessor:ident: $type:ident = $map:ident),+) => {
        $(
            #[inline(always)]
            fn $accessor() -> &'static $type<$address> {
                &maps::$map
            }
        )+

        #[inline(always)]
        fn temp_flow() -> Result<&'static mut TempFlow<$address>, Outcome> {
            // SAFETY: a function requests it once. What it reads after a call of a function that requests it too, that
            // function does not write.
            unsafe { maps::own(&maps::$flow, 0) }.ok_or(Outcome::NotConfigured)
        }

        #[inline(always)]
        fn temp_event(slot: EventSlot) -> Option<&'static mut EventBuffer<$address>> {
            // SAFETY: as above. Programs that may interrupt each other have separate slots.
            unsafe { maps::own(&maps::$event, slot as u32) }
        }

        #[inline(always)]
        fn temp_trace() -> Option<&'static mut TraceBuffer<$address>> {
            // SAFETY: as above.
            unsafe { maps::own(&maps::$trace, 0) }
        }
    };
}

impl KernelFamily for V4 {
    maps_of! {
        Ipv4Address, scratch: TEMP_FLOW_V4, TEMP_EVENT_V4, TEMP_TRACE_V4;
        flows: FlowMap = FLOWS_V4,
        rules: RuleMap = RULES_V4,
        addresses: AddressMap = ADDRESSES_V4,
        fragments: FragmentMap = FRAGMENTS_V4,
        held: HeldMap = HELD_V4,
        routes: RouteMap = ROUTES_V4,
        unresolved: UnresolvedMap = UNRESOLVED_V4,
        exhausted: ExhaustedMap = EXHAUSTED_V4,
        sweep_queue: SweepQueue = SWEEP_V4
    }

    #[inline(always)]
    fn reserved(rules: &RuleSet) -> Ipv4Address {
        rules.reserved_v4
    }

    #[inline(always)]
    fn fallback(rules: &RuleSet) -> Ipv4Address {
        rules.fallback_v4
    }

    #[inline(always)]
    fn rewrite_addresses(
        packet: &Packet,
        offset: usize,
        addresses: Pair<Ipv4Address>,
        delta: u16,
    ) -> Result<(), Outcome> {
        let checksum_offset = offset + offset_of!(Ipv4Header, checksum);
        let before = packet.load(checksum_offset).ok_or(Outcome::RewriteFailed)?;
        packet.store(checksum_offset, checksum::apply(before, delta))?;
        packet.store(offset + offset_of!(Ipv4Header, addresses), addresses)
    }

    #[inline(always)]
    fn decrement_ttl(packet: &Packet) -> Result<(), Outcome> {
        const TTL: usize = ETHERNET_HEADER_LEN + offset_of!(Ipv4Header, ttl_protocol);
        const CHECKSUM: usize = ETHERNET_HEADER_LEN + offset_of!(Ipv4Header, checksum);
        // The TTL is the upper octet of its word, so the decrement's delta does not depend on the lower one (RFC 1141).
        const DELTA: u16 = checksum::delta(u16::from_ne_bytes([1, 0]) as u32, 0);
        let ttl: u8 = packet.load(TTL).ok_or(Outcome::RewriteFailed)?;
        packet.store(TTL, ttl.wrapping_sub(1))?;
        let before = packet.load(CHECKSUM).ok_or(Outcome::RewriteFailed)?;
        packet.store(CHECKSUM, checksum::apply(before, DELTA))
    }

    #[inline(always)]
    fn store_header(
        packet: &Packet,
        addresses: Pair<Ipv4Address>,
        protocol: u8,
        len: usize,
    ) -> Result<(), Outcome> {
        let mut header = Ipv4Header {
            version_ihl: 0x45,
            // Internetwork control, which Linux sets on its ICMP errors (RFC 1812, section 4.3.2.5).
            tos: if protocol == protocol::ICMP { 0xc0 } else { 0 },
            total_length: (len as u16).to_be_bytes(),
            id: [0; 2],
            fragment: [0; 2],
            ttl_protocol: [64, protocol],
            checksum: 0,
            addresses,
        };
        let words: [u16; 10] = bytemuck::cast(header);
        header.checksum = !checksum::fold(words.iter().map(|word| u32::from(*word)).sum());
        packet.store(ETHERNET_HEADER_LEN, header)
    }
}

impl KernelFamily for V6 {
    maps_of! {
        Ipv6Address, scratch: TEMP_FLOW_V6, TEMP_EVENT_V6, TEMP_TRACE_V6;
        flows: FlowMap = FLOWS_V6,
        rules: RuleMap = RULES_V6,
        addresses: AddressMap = ADDRESSES_V6,
        fragments: FragmentMap = FRAGMENTS_V6,
        held: HeldMap = HELD_V6,
        routes: RouteMap = ROUTES_V6,
        unresolved: UnresolvedMap = UNRESOLVED_V6,
        exhausted: ExhaustedMap = EXHAUSTED_V6,
        sweep_queue: SweepQueue = SWEEP_V6
    }

    #[inline(always)]
    fn reserved(rules: &RuleSet) -> Ipv6Address {
        rules.reserved_v6
    }

    #[inline(always)]
    fn fallback(rules: &RuleSet) -> Ipv6Address {
        rules.fallback_v6
    }

    #[inline(always)]
    fn rewrite_addresses(
        packet: &Packet,
        offset: usize,
        addresses: Pair<Ipv6Address>,
        _delta: u16,
    ) -> Result<(), Outcome> {
        packet.store(offset + offset_of!(Ipv6Header, addresses), addresses)
    }

    #[inline(always)]
    fn decrement_ttl(packet: &Packet) -> Result<(), Outcome> {
        const HOP_LIMIT: usize = ETHERNET_HEADER_LEN + offset_of!(Ipv6Header, hop_limit);
        let hop_limit: u8 = packet.load(HOP_LIMIT).ok_or(Outcome::RewriteFailed)?;
        packet.store(HOP_LIMIT, hop_limit.wrapping_sub(1))
    }

    #[inline(always)]
    fn store_header(
        packet: &Packet,
        addresses: Pair<Ipv6Address>,
        protocol: u8,
        len: usize,
    ) -> Result<(), Outcome> {
        packet.store(
            ETHERNET_HEADER_LEN,
            Ipv6Header {
                version_class_flow: [0x60, 0, 0, 0],
                payload_length: ((len - Self::HEADER_LEN) as u16).to_be_bytes(),
                next_header: protocol,
                hop_limit: 64,
                addresses,
            },
        )
    }
}
