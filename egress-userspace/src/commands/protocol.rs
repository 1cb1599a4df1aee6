//! The protocols that options name.

use egress_common::protocol;

/// A protocol that is translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
    Icmp,
    Icmpv6,
}

impl Protocol {
    /// Its number in IP headers.
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
            Self::Sctp => protocol::SCTP,
            Self::Icmp => protocol::ICMP,
            Self::Icmpv6 => protocol::ICMPV6,
        }
    }

    /// Its name, as flows and rules have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
            Self::Icmp => "ICMP",
            Self::Icmpv6 => "ICMPv6",
        }
    }

    /// Whether it is that of pings, which have an identifier in place of ports.
    pub const fn is_echo(self) -> bool {
        matches!(self, Self::Icmp | Self::Icmpv6)
    }
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn names_are_those_that_flows_have() {
        for it in Protocol::value_variants() {
            assert_eq!(protocol::name(it.number()), Some(it.name()));
        }
    }
}
