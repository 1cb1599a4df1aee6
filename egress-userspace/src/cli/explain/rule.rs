//! The rule that a connection matches.

use egress_api::Family;

use super::super::protocol::FlowProtocol;
use crate::dataplane::RuleReport;

/// The rule that a connection of this family matches: that of its port, else the fallback.
pub fn find(
    rules: &[RuleReport],
    family: Family,
    port: u16,
    protocol: FlowProtocol,
) -> Option<&RuleReport> {
    let of_family = |rule: &&RuleReport| Family::of(rule.destination.address) == family;
    let is_of_port =
        |rule: &&RuleReport| rule.port == Some(port) && rule.protocol == protocol.name();
    let mut rules = rules.iter().filter(of_family);
    rules
        .clone()
        .find(is_of_port)
        .or_else(|| rules.find(|rule| rule.port.is_none()))
}

#[cfg(test)]
mod tests {
    use crate::dataplane::{Target, TrafficReport};
    use egress_api::Protocol;

    use super::*;

    fn rule(id: u32, port: Option<u16>, server: &str) -> RuleReport {
        RuleReport {
            id,
            protocol: if port.is_some() { "TCP" } else { "any" }.to_owned(),
            port,
            destination: Target {
                address: server.parse().unwrap(),
                port,
            },
            flows: 0,
            original: TrafficReport::default(),
            reply: TrafficReport::default(),
        }
    }

    #[test]
    fn a_rule_of_the_family_precedes_the_fallback() {
        let rules = [
            rule(0, None, "203.0.113.99"),
            rule(1, Some(8080), "2001:db8::1"),
            rule(2, Some(8080), "203.0.113.26"),
        ];
        let found =
            |family, port, protocol| find(&rules, family, port, protocol).map(|rule| rule.id);
        assert_eq!(
            found(Family::V4, 8080, FlowProtocol::Transport(Protocol::Tcp)),
            Some(2)
        );
        assert_eq!(
            found(Family::V6, 8080, FlowProtocol::Transport(Protocol::Tcp)),
            Some(1)
        );
        assert_eq!(
            found(Family::V4, 8080, FlowProtocol::Transport(Protocol::Udp)),
            Some(0)
        );
        assert_eq!(
            found(Family::V4, 8080, FlowProtocol::Echo(Family::V4)),
            Some(0)
        );
        assert_eq!(
            found(Family::V6, 8080, FlowProtocol::Transport(Protocol::Udp)),
            None
        );
    }
}
