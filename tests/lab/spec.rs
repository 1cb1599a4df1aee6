//! Specs of the tests' own, for either dataplane.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::addresses::{NETWORKS, Protocol, Rule};

/// What the router is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The redirect rules.
    pub rules: Vec<Rule>,
    /// The server of what no rule names.
    pub fallback: Option<IpAddr>,
}

impl Spec {
    /// The same rules for both families, and no fallback.
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

    /// With a server for what no rule of its family names.
    #[must_use]
    pub fn with_fallback(mut self, server: IpAddr) -> Self {
        self.fallback = Some(server);
        self
    }

    /// The spec as an `EgressRouter` resource, in YAML.
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
        for network in NETWORKS {
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
            writeln!(
                yaml,
                "      - {{port: {}, protocol: {protocol}, destinationIP: '{}', targetPort: {}}}",
                rule.port, rule.destination.address, rule.target_port
            )?;
        }
        if let Some(server) = self.fallback {
            writeln!(yaml, "    fallbackIP: '{server}'")?;
        }
        Ok(yaml)
    }
}
