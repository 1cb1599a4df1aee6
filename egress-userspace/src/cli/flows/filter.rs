//! The options that select flows.

use std::str::FromStr;

use ipnet::IpNet;

use super::super::{protocol::FlowProtocol, subnet};
use crate::dataplane::{Endpoint, FlowReport};

/// The names of all states of flows.
const STATES: [&str; 16] = [
    "SYN_SENT",
    "SYN_RECV",
    "ESTABLISHED",
    "UNANSWERED",
    "FIN_WAIT",
    "CLOSE_WAIT",
    "TIME_WAIT",
    "CLOSE",
    "COOKIE_WAIT",
    "COOKIE_ECHOED",
    "HEARTBEAT_SENT",
    "SHUTDOWN",
    "CLOSED",
    "UNREPLIED",
    "REPLIED",
    "ASSURED",
];

/// Options that select flows. A flow must match one value of each option that is given.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Which flows")]
pub struct Filter {
    /// Flows of this client or subnet
    #[arg(long, value_name = "ADDR[/LEN]", value_parser = subnet::parse, conflicts_with = "follow")]
    client: Vec<IpNet>,

    /// Flows to this server or subnet, and this port; IPv6 with a port needs brackets
    #[arg(long, value_name = "ADDR[/LEN][:PORT]", conflicts_with = "follow")]
    destination: Vec<Destination>,

    /// Flows of the rule with this number, as shown by `rules`
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    rule: Vec<u32>,

    /// Flows of this protocol
    #[arg(
        long,
        value_name = "P",
        value_enum,
        ignore_case = true,
        conflicts_with = "follow"
    )]
    protocol: Vec<FlowProtocol>,

    /// Flows in this state
    #[arg(long, value_name = "NAME", ignore_case = true, hide_possible_values = true, conflicts_with = "follow",
        value_parser = STATES)]
    state: Vec<String>,
}

/// A server, or the servers of a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Destination {
    subnet: IpNet,
    port: Option<u16>,
}

impl FromStr for Destination {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (subnet, port) = if let Some(bracketed) = text.strip_prefix('[') {
            let (subnet, rest) = bracketed
                .split_once(']')
                .ok_or_else(|| "the bracket is not closed".to_owned())?;
            let port = match rest {
                "" => None,
                _ => Some(rest.strip_prefix(':').ok_or_else(|| {
                    format!("expected a colon and a port after the bracket, not {rest:?}")
                })?),
            };
            (subnet, port)
        } else if text.matches(':').count() == 1 {
            let (subnet, port) = text.split_once(':').unwrap_or((text, ""));
            (subnet, Some(port))
        } else {
            (text, None)
        };
        let port = port
            .map(|port| {
                port.parse()
                    .map_err(|_| format!("{port:?} is not a port (0–65535)"))
            })
            .transpose()?;
        Ok(Self {
            subnet: subnet::parse(subnet)?,
            port,
        })
    }
}

impl Destination {
    fn contains(&self, server: Endpoint) -> bool {
        self.subnet.contains(&server.address) && self.port.is_none_or(|port| port == server.port)
    }
}

/// Returns `true` if any of the values fits, or if there are none.
fn any<T>(values: &[T], fits: impl Fn(&T) -> bool) -> bool {
    values.is_empty() || values.iter().any(fits)
}

impl Filter {
    /// Returns `true` if the flow fits all options.
    pub fn selects(&self, flow: &FlowReport) -> bool {
        any(&self.rule, |rule| *rule == flow.rule)
            && any(&self.client, |subnet| subnet.contains(&flow.client.address))
            && any(&self.destination, |destination| {
                destination.contains(flow.server)
            })
            && any(&self.protocol, |it| it.name() == flow.protocol)
            && any(&self.state, |name| name.eq_ignore_ascii_case(flow.state))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::order::tests::flow, *};

    #[test]
    fn a_destination_is_an_address_or_a_subnet_with_or_without_a_port() {
        let server = flow(1).server;
        for text in [
            "203.0.113.26",
            "203.0.113.0/24:80",
            "203.0.113.26:80",
            "0.0.0.0/0",
        ] {
            assert!(
                text.parse::<Destination>().unwrap().contains(server),
                "{text}"
            );
        }
        for text in ["203.0.113.27", "203.0.113.26:81", "[::]/0", "::/0"] {
            let destination = text.parse::<Destination>();
            assert!(!destination.is_ok_and(|it| it.contains(server)), "{text}");
        }
        let v6: Destination = "[2001:db8::/32]:443".parse().unwrap();
        assert!(v6.contains(Endpoint {
            address: "2001:db8::1".parse().unwrap(),
            port: 443
        }));
        assert!("2001:db8::1".parse::<Destination>().unwrap().port.is_none());
    }

    #[test]
    fn an_invalid_destination_is_refused_with_the_reason() {
        let error = |text: &str| text.parse::<Destination>().unwrap_err();
        assert!(error("10.0.0.0/33").contains("(0–32)"));
        assert!(error("10.0.0.1:http").contains("not a port"));
        assert!(error("server").contains("not an IP address"));
        assert!(error("[::1").contains("not closed"));
        assert!(error("[::1]80").contains("colon"));
    }

    #[test]
    fn one_of_several_values_is_enough_but_every_option_counts() {
        let filter = |rules: &[u32], clients: &[&str]| Filter {
            rule: rules.to_vec(),
            client: clients
                .iter()
                .map(|text| subnet::parse(text).unwrap())
                .collect(),
            ..Filter::default()
        };
        let flow = flow(1);
        assert!(Filter::default().selects(&flow));
        assert!(filter(&[7, flow.rule], &[]).selects(&flow));
        assert!(!filter(&[7], &["10.128.0.0/16"]).selects(&flow));
        assert!(filter(&[flow.rule], &["192.0.2.1", "10.128.0.0/16"]).selects(&flow));
    }
}
