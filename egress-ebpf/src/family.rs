//! What the pipeline needs of a family beyond parsing: its maps, and the rewriting of its header.

use core::mem::offset_of;

use egress_common::{
    AddressKey, Bytes as _, Config, ETHERNET_HEADER_LEN, Family, Flow, Ipv4Address, Ipv4Header,
    Outcome, Rule, RuleKey, Translation, Tuple, V4, checksum,
};

use crate::{maps, packet::Packet};

pub type FlowMap<A> = maps::HashMap<Tuple<A>, Flow<A>, { maps::FLOWS }>;
pub type RuleMap<A> = maps::HashMap<RuleKey, Rule<A>, { maps::RULES }>;
pub type AddressMap<A> = maps::HashMap<AddressKey<A>, u32, { maps::ADDRESSES }>;

pub trait Pipeline: Family {
    fn flows() -> &'static FlowMap<Self::Address>;
    fn rules() -> &'static RuleMap<Self::Address>;
    fn addresses() -> &'static AddressMap<Self::Address>;

    /// The address that flows leave with.
    fn reserved(config: &Config) -> Self::Address;

    /// Writes the new addresses, and what follows from them within the IP header.
    fn rewrite_header(
        packet: &Packet<'_>,
        translation: &Translation<Self::Address>,
    ) -> Result<(), Outcome>;
}

impl Pipeline for V4 {
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
    fn reserved(config: &Config) -> Ipv4Address {
        config.reserved_v4
    }

    #[inline(always)]
    fn rewrite_header(
        packet: &Packet<'_>,
        translation: &Translation<Ipv4Address>,
    ) -> Result<(), Outcome> {
        const CHECKSUM: usize = ETHERNET_HEADER_LEN + offset_of!(Ipv4Header, checksum);
        const ADDRESSES: usize = ETHERNET_HEADER_LEN + offset_of!(Ipv4Header, addresses);
        let before = packet.load(CHECKSUM).ok_or(Outcome::RewriteFailed)?;
        packet.store(CHECKSUM, checksum::apply(before, translation.address_delta))?;
        packet.store(ADDRESSES, translation.addresses)
    }
}
