//! What the pipeline needs of a family beyond parsing: its maps, and the rewriting of its header.

use core::mem::offset_of;

use egress_common::{
    AddressKey, Bytes as _, ETHERNET_HEADER_LEN, Family, FirstFragment, Flow, FragmentKey,
    HeldFragment, Ipv4Address, Ipv4Header, Ipv6Address, Ipv6Header, NextHopRef, Outcome, Pair,
    Rule, RuleKey, RuleSet, SweepItem, Tuple, V4, V6, checksum,
};

use crate::{
    events::Draft, maps, packet::Packet, rare::Rare, reject::Errors, scratch::Scratch,
    trace::Traced,
};

pub type FlowMap<A> = maps::HashMap<Tuple<A>, Flow<A>, { maps::FLOWS }>;
pub type RuleMap<A> = maps::HashMap<RuleKey, Rule<A>, { maps::RULES }>;
pub type AddressMap<A> = maps::HashMap<AddressKey<A>, u32, { maps::ADDRESSES }>;

pub type FragmentMap<A> = maps::LruHashMap<FragmentKey<A>, FirstFragment, { maps::FRAGMENTS }>;

pub type RouteMap<A> = maps::HashMap<AddressKey<A>, NextHopRef, { maps::ROUTES }>;

/// When the next hop was looked for, as [`crate::clock`] says.
pub type UnresolvedMap<A> = maps::LruHashMap<AddressKey<A>, u64, { maps::UNRESOLVED }>;

pub type HeldMap<A> = maps::LruHashMap<FragmentKey<A>, HeldFragment, { maps::HELD }>;

/// By the tuple of the server's answers, without the NAT port; when the last search was in vain, as [`crate::clock`] says.
pub type ExhaustedMap<A> = maps::LruHashMap<Tuple<A>, u64, { maps::EXHAUSTED }>;

/// Each flow has one place.
pub type SweepQueue<A> = maps::Queue<SweepItem<A>, { maps::FLOWS / 2 }>;

pub trait Pipeline: Family + Errors + Rare {
    /// Whether the ICMP checksum covers a pseudo header, and UDP has to have a checksum (RFC 8200, section 8.1).
    const IS_V6: bool;

    fn flows() -> &'static FlowMap<Self::Address>;
    fn rules() -> &'static RuleMap<Self::Address>;
    fn addresses() -> &'static AddressMap<Self::Address>;
    fn fragments() -> &'static FragmentMap<Self::Address>;
    fn routes() -> &'static RouteMap<Self::Address>;
    fn unresolved() -> &'static UnresolvedMap<Self::Address>;
    fn held() -> &'static HeldMap<Self::Address>;
    fn exhausted() -> &'static ExhaustedMap<Self::Address>;
    fn sweep_queue() -> &'static SweepQueue<Self::Address>;

    /// This CPU's place to put a flow together.
    fn scratch() -> Option<&'static mut Scratch<Self::Address>>;

    /// One of this CPU's places to put a flow event together.
    fn draft(slot: u32) -> Option<&'static mut Draft<Self::Address>>;

    /// This CPU's place for the packet that is traced.
    fn traced() -> Option<&'static mut Traced<Self::Address>>;

    /// The address that flows leave with.
    fn reserved(rules: &RuleSet) -> Self::Address;

    /// The server of packets without a rule.
    fn fallback(rules: &RuleSet) -> Self::Address;

    /// Writes the new addresses at the IP header at `offset`, and what follows from them within it.
    fn rewrite_addresses(
        packet: &Packet,
        offset: usize,
        addresses: Pair<Self::Address>,
        delta: u16,
    ) -> Result<(), Outcome>;

    /// Takes one from the time to live, which was above 1.
    fn decrement_ttl(packet: &Packet) -> Result<(), Outcome>;
}

impl Pipeline for V4 {
    const IS_V6: bool = false;

    #[inline(always)]
    fn flows() -> &'static FlowMap<Ipv4Address> {
        &maps::FLOWS_V4
    }

    #[inline(always)]
    fn rules() -> &'static RuleMap<Ipv4Address> {
        &maps::RULES_V4
    }

    #[inline(always)]
    fn addresses() -> &'static AddressMap<Ipv4Address> {
        &maps::ADDRESSES_V4
    }

    #[inline(always)]
    fn fragments() -> &'static FragmentMap<Ipv4Address> {
        &maps::FRAGMENTS_V4
    }

    #[inline(always)]
    fn routes() -> &'static RouteMap<Ipv4Address> {
        &maps::ROUTES_V4
    }

    #[inline(always)]
    fn unresolved() -> &'static UnresolvedMap<Ipv4Address> {
        &maps::UNRESOLVED_V4
    }

    #[inline(always)]
    fn held() -> &'static HeldMap<Ipv4Address> {
        &maps::HELD_V4
    }

    #[inline(always)]
    fn exhausted() -> &'static ExhaustedMap<Ipv4Address> {
        &maps::EXHAUSTED_V4
    }

    #[inline(always)]
    fn sweep_queue() -> &'static SweepQueue<Ipv4Address> {
        &maps::SWEEP_V4
    }

    #[inline(always)]
    fn scratch() -> Option<&'static mut Scratch<Ipv4Address>> {
        // SAFETY: the element is this CPU's own, and its program is not interrupted by another of ours.
        maps::SCRATCH_V4
            .get_ptr_mut(0)
            .map(|scratch| unsafe { &mut *scratch })
    }

    #[inline(always)]
    fn draft(slot: u32) -> Option<&'static mut Draft<Ipv4Address>> {
        // SAFETY: the element is this CPU's own, and its program is not interrupted by another that uses this place.
        maps::DRAFT_V4
            .get_ptr_mut(slot)
            .map(|draft| unsafe { &mut *draft })
    }

    #[inline(always)]
    fn traced() -> Option<&'static mut Traced<Ipv4Address>> {
        // SAFETY: the element is this CPU's own, and its program is not interrupted by another of ours.
        maps::TRACED_V4
            .get_ptr_mut(0)
            .map(|traced| unsafe { &mut *traced })
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
        // One less in the upper octet of its word, whatever the lower one (RFC 1141).
        const DELTA: u16 = checksum::delta(u16::from_ne_bytes([1, 0]) as u32, 0);
        let ttl: u8 = packet.load(TTL).ok_or(Outcome::RewriteFailed)?;
        packet.store(TTL, ttl.wrapping_sub(1))?;
        let before = packet.load(CHECKSUM).ok_or(Outcome::RewriteFailed)?;
        packet.store(CHECKSUM, checksum::apply(before, DELTA))
    }
}

impl Pipeline for V6 {
    const IS_V6: bool = true;

    #[inline(always)]
    fn flows() -> &'static FlowMap<Ipv6Address> {
        &maps::FLOWS_V6
    }

    #[inline(always)]
    fn rules() -> &'static RuleMap<Ipv6Address> {
        &maps::RULES_V6
    }

    #[inline(always)]
    fn addresses() -> &'static AddressMap<Ipv6Address> {
        &maps::ADDRESSES_V6
    }

    #[inline(always)]
    fn fragments() -> &'static FragmentMap<Ipv6Address> {
        &maps::FRAGMENTS_V6
    }

    #[inline(always)]
    fn routes() -> &'static RouteMap<Ipv6Address> {
        &maps::ROUTES_V6
    }

    #[inline(always)]
    fn unresolved() -> &'static UnresolvedMap<Ipv6Address> {
        &maps::UNRESOLVED_V6
    }

    #[inline(always)]
    fn held() -> &'static HeldMap<Ipv6Address> {
        &maps::HELD_V6
    }

    #[inline(always)]
    fn exhausted() -> &'static ExhaustedMap<Ipv6Address> {
        &maps::EXHAUSTED_V6
    }

    #[inline(always)]
    fn sweep_queue() -> &'static SweepQueue<Ipv6Address> {
        &maps::SWEEP_V6
    }

    #[inline(always)]
    fn scratch() -> Option<&'static mut Scratch<Ipv6Address>> {
        // SAFETY: the element is this CPU's own, and its program is not interrupted by another of ours.
        maps::SCRATCH_V6
            .get_ptr_mut(0)
            .map(|scratch| unsafe { &mut *scratch })
    }

    #[inline(always)]
    fn draft(slot: u32) -> Option<&'static mut Draft<Ipv6Address>> {
        // SAFETY: the element is this CPU's own, and its program is not interrupted by another that uses this place.
        maps::DRAFT_V6
            .get_ptr_mut(slot)
            .map(|draft| unsafe { &mut *draft })
    }

    #[inline(always)]
    fn traced() -> Option<&'static mut Traced<Ipv6Address>> {
        // SAFETY: the element is this CPU's own, and its program is not interrupted by another of ours.
        maps::TRACED_V6
            .get_ptr_mut(0)
            .map(|traced| unsafe { &mut *traced })
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
}
