//! Specs that tests build, for either dataplane.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::addresses::{NETWORKS, Network, Protocol, Rule};

/// What the router should do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The redirect rules.
    pub rules: Vec<Rule>,
    /// The server for ports without a rule.
    pub fallback: Option<IpAddr>,
}

impl Spec {
    /// The same rules for both families, without a fallback.
    pub fn dual_stack() -> Self {
        let rules = NETWORKS.map(|network| {
            [
                network.datagram(),
                network.http(),
                network.tls(),
                network.association(),
            ]
        });
        Self {
            rules: rules.concat(),
            fallback: None,
        }
    }

    /// Adds a fallback, for ports of its family without a rule.
    #[must_use]
    pub fn with_fallback(mut self, server: IpAddr) -> Self {
        self.fallback = Some(server);
        self
    }

    /// Whether the spec has a server of this family.
    fn names(&self, network: &Network) -> bool {
        let servers = self.rules.iter().map(|rule| rule.destination.address);
        servers
            .chain(self.fallback)
            .any(|server| server.is_ipv4() == network.cluster.address.is_ipv4())
    }

    /// The spec as an `EgressRouter` resource in YAML, with a reserved address of each family that it uses.
    pub fn yaml(&self) -> String {
        self.write_yaml()
            .expect("writing to a string does not fail")
    }

    fn write_yaml(&self) -> Result<String, std::fmt::Error> {
        let mut yaml = String::from(
            "apiVersion: network.operator.openshift.io/v1\n\
             kind: EgressRouter\n\
             metadata: {name: lab}\n\
             spec:\n  \
               addresses:\n",
        );
        for network in NETWORKS.iter().filter(|network| self.names(network)) {
            let (own, gateway) = (network.router_net1, network.gateway.address);
            writeln!(yaml, "    - {{ip: '{own}', gateway: '{gateway}'}}")?;
        }
        yaml.push_str("  redirect:\n    redirectRules:\n");
        for rule in &self.rules {
            let protocol = match rule.protocol {
                Protocol::Tcp => "TCP",
                Protocol::Udp => "UDP",
                Protocol::Sctp => "SCTP",
            };
            let (port, server) = (rule.port, rule.destination.address);
            write!(
                yaml,
                "    - {{port: {port}, protocol: {protocol}, destinationIP: '{server}'"
            )?;
            if rule.target_port != port {
                write!(yaml, ", targetPort: {}", rule.target_port)?;
            }
            yaml.push_str("}\n");
        }
        if let Some(server) = self.fallback {
            writeln!(yaml, "    fallbackIP: '{server}'")?;
        }
        Ok(yaml)
    }
}
