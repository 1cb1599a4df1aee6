//! The rule table: the part of a resource that the dataplane takes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::family::Family;
use crate::model::{EgressRouter, Mode};
use crate::rule::Rule;

/// All rules of a router, with its reserved addresses and its fallback.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleTable {
    /// The source address that IPv4 packets leave with.
    pub reserved_v4: Option<Ipv4Addr>,
    /// The source address that IPv6 packets leave with.
    pub reserved_v6: Option<Ipv6Addr>,
    /// One rule for each port, protocol and address family, in the resource's order.
    pub rules: Vec<Rule>,
    /// The destination of IPv4 packets that match no rule. The port stays.
    pub fallback_v4: Option<Ipv4Addr>,
    /// The destination of IPv6 packets that match no rule. The port stays.
    pub fallback_v6: Option<Ipv6Addr>,
}

impl RuleTable {
    /// The reserved address of a family.
    pub fn reserved(&self, family: Family) -> Option<IpAddr> {
        match family {
            Family::V4 => self.reserved_v4.map(IpAddr::V4),
            Family::V6 => self.reserved_v6.map(IpAddr::V6),
        }
    }

    /// The fallbacks: none, one, or one of each family.
    pub fn fallbacks(&self) -> impl Iterator<Item = IpAddr> {
        let v4 = self.fallback_v4.map(IpAddr::V4);
        v4.into_iter().chain(self.fallback_v6.map(IpAddr::V6))
    }

    /// The number of rules and fallbacks.
    pub fn len(&self) -> usize {
        self.rules.len() + self.fallbacks().count()
    }

    /// Whether there are no rules and no fallbacks.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The destinations of all rules and fallbacks, with duplicates.
    pub fn destinations(&self) -> impl Iterator<Item = IpAddr> {
        let rules = self.rules.iter().map(|rule| rule.destination);
        rules.chain(self.fallbacks())
    }
}

impl From<&EgressRouter> for RuleTable {
    fn from(router: &EgressRouter) -> Self {
        let Mode::Redirect(redirect) = &router.spec.mode;
        let mut table = Self {
            rules: redirect.redirect_rules.iter().map(Rule::from).collect(),
            ..Self::default()
        };
        for own in &router.spec.addresses {
            match own.ip.addr() {
                IpAddr::V4(address) => table.reserved_v4 = Some(address),
                IpAddr::V6(address) => table.reserved_v6 = Some(address),
            }
        }
        match redirect.fallback_ip {
            Some(IpAddr::V4(address)) => table.fallback_v4 = Some(address),
            Some(IpAddr::V6(address)) => table.fallback_v6 = Some(address),
            None => {}
        }
        table
    }
}
