//! The protocols that options accept.

use clap::{ValueEnum, builder::PossibleValue};
use egress_api::{Family, Protocol};
use egress_common::protocol;

/// A protocol whose packets are translated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlowProtocol {
    /// A protocol of rules.
    Transport(Protocol),
    /// Echo requests and replies of ICMP, or of `ICMPv6`. They have an identifier in place of ports.
    Echo(Family),
}

impl FlowProtocol {
    /// Its number in IP headers.
    pub const fn number(self) -> u8 {
        match self {
            Self::Transport(transport) => transport.number(),
            Self::Echo(Family::V4) => protocol::ICMP,
            Self::Echo(Family::V6) => protocol::ICMPV6,
        }
    }

    /// Its name in flows and rules.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transport(transport) => transport.name(),
            Self::Echo(Family::V4) => "ICMP",
            Self::Echo(Family::V6) => "ICMPv6",
        }
    }

    /// Returns `true` for pings.
    pub const fn is_echo(self) -> bool {
        matches!(self, Self::Echo(_))
    }
}

impl ValueEnum for FlowProtocol {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Transport(Protocol::Tcp),
            Self::Transport(Protocol::Udp),
            Self::Transport(Protocol::Sctp),
            Self::Echo(Family::V4),
            Self::Echo(Family::V6),
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Transport(Protocol::Tcp) => "tcp",
            Self::Transport(Protocol::Udp) => "udp",
            Self::Transport(Protocol::Sctp) => "sctp",
            Self::Echo(Family::V4) => "icmp",
            Self::Echo(Family::V6) => "icmpv6",
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_flows() {
        for it in FlowProtocol::value_variants() {
            assert_eq!(protocol::name(it.number()), Some(it.name()));
        }
    }
}
