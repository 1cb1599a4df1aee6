//! Follows a new connection through the router.

use std::net::{IpAddr, SocketAddr};

use egress_api::{Family, Protocol};
use egress_common::{Config, Outcome, Side};

use super::{
    super::protocol::FlowProtocol,
    args::Args,
    explanation::{Explanation, Finding},
    route, rule, sockets,
    table::Table,
};
use crate::{
    dataplane::{Endpoint, Instance, RuleReport},
    net::{interface::Interfaces, kernel},
};

/// A connection that is being followed.
pub struct Steps<'c> {
    args: &'c Args,
    family: Family,
    instance: &'c Instance,
    config: Config,
    interfaces: Interfaces,
    explanation: Explanation,
}

impl<'c> Steps<'c> {
    /// Follows the connection up to the last step that it reaches. Must be called within a tokio runtime.
    pub async fn follow(args: &'c Args, instance: &'c Instance) -> anyhow::Result<Explanation> {
        let mut steps = Self {
            args,
            family: Family::of(args.client),
            instance,
            config: instance.maps.config()?,
            interfaces: Interfaces::connect()?,
            explanation: Explanation::new(),
        };
        steps.note_all().await?;
        Ok(steps.explanation)
    }

    async fn note_all(&mut self) -> anyhow::Result<()> {
        let rules = self.instance.maps.rules()?;
        let Some(server) = self.find_server(&rules).await? else {
            return Ok(());
        };
        if !self.find_source() || !self.find_room(server)? {
            return Ok(());
        }
        self.note_mtu();
        for (side, index, destination) in [
            (
                Side::Egress,
                self.instance.info.identity.egress_ifindex,
                server.address,
            ),
            (
                Side::Cluster,
                self.instance.info.identity.cluster_ifindex,
                self.args.client,
            ),
        ] {
            let explanation = &mut self.explanation;
            route::note(explanation, &self.interfaces, side, index, destination).await?;
        }
        Ok(())
    }

    /// Adds the steps `router` and `rule`. Returns the server, or `None` if the connection ends here.
    async fn find_server(&mut self, rules: &[RuleReport]) -> anyhow::Result<Option<Endpoint>> {
        let (family, args) = (self.family, self.args);
        let mut own = self
            .interfaces
            .addresses(self.instance.info.identity.cluster_ifindex)
            .await?;
        own.retain(|own| Family::of(*own) == family);
        let Some(address) = own.first() else {
            let detail = format!("the router has no {family} address for clients");
            self.explanation.note("router", Finding::End, detail);
            return Ok(None);
        };
        let detail = format!("{family}, such as {address}");
        self.explanation.note("router", Finding::Good, detail);

        let Some(rule) = rule::find(rules, family, args.port, args.protocol) else {
            let detail = self.without_rule();
            self.explanation.note("rule", Finding::End, detail);
            return Ok(None);
        };
        let server = Endpoint {
            address: rule.destination.address,
            port: match rule.destination.port {
                Some(port) => port,
                None if args.protocol.is_echo() => 0,
                None => args.port,
            },
        };
        let (finding, detail) = if rule.port.is_some() {
            (Finding::Good, format!("{}, to {server}", rule.id))
        } else {
            let socket = sockets::find(args.protocol, &own, args.port)?;
            by_fallback(rule.id, args.protocol, server, socket)
        };
        let proceeds = self.explanation.note("rule", finding, detail);
        Ok(proceeds.then_some(server))
    }

    fn without_rule(&self) -> String {
        let (family, protocol) = (self.family, self.args.protocol);
        let what = if protocol.is_echo() {
            "pings match only a fallback".to_owned()
        } else {
            format!("none for {}/{}", self.args.port, protocol.name())
        };
        let then = match protocol {
            FlowProtocol::Transport(Protocol::Sctp) => {
                let outcome = Outcome::SctpRefused.name();
                format!("refused with an ABORT ({outcome})")
            }
            _ => left_to_the_pod(),
        };
        format!("{what}, and no {family} fallback: {then}")
    }

    /// Adds the step `source`. Returns `true` if there is a reserved address.
    fn find_source(&mut self) -> bool {
        let set = self.config.rule_set(self.config.rules_in_force());
        let reserved: IpAddr = match self.family {
            Family::V4 => set.reserved_v4.into(),
            Family::V6 => set.reserved_v6.into(),
        };
        if reserved.is_unspecified() {
            let outcome = Outcome::NotConfigured.name();
            let detail = format!("no reserved {} address: dropped ({outcome})", self.family);
            return self.explanation.note("source", Finding::End, detail);
        }
        self.explanation
            .note("source", Finding::Good, reserved.to_string())
    }

    /// Adds the steps `flows`, `table` and `nat port`. Returns `true` if the flow table may have room and a NAT port is
    /// free.
    fn find_room(&mut self, server: Endpoint) -> anyhow::Result<bool> {
        let (args, config) = (self.args, &self.config);
        let maps = &self.instance.maps;
        let flows = maps.walk_flows(kernel::monotonic_ns())?;
        let table = Table::of(flows, args, server, config.nat_range);
        let to = if args.protocol.is_echo() {
            "with this identifier"
        } else {
            "to this port"
        };
        let detail = format!("{} of this client {to}", table.of_client);
        let explanation = &mut self.explanation;
        explanation.note("flows", Finding::Good, detail);
        let expendable = || maps.count_expendable(self.family);
        Ok(
            table.note_room(explanation, self.instance.info.max_flows, expendable)?
                && table.note_ports(explanation, args, config.nat_range),
        )
    }

    fn note_mtu(&mut self) {
        let config = &self.config;
        let mtu = config.mtu(Side::Cluster).min(config.mtu(Side::Egress));
        let detail = mtu_detail(mtu, self.family, self.args.protocol);
        self.explanation.note("mtu", Finding::Good, detail);
    }
}

fn left_to_the_pod() -> String {
    format!("left to the pod's own stack ({})", Outcome::NoRule.name())
}

/// What the fallback does. `socket` is the pod's own socket that receives the packet, if there is one.
fn by_fallback(
    id: u32,
    protocol: FlowProtocol,
    server: Endpoint,
    socket: Option<sockets::OpenSocket>,
) -> (Finding, String) {
    let to = if protocol.is_echo() {
        server.address.to_string()
    } else {
        SocketAddr::new(server.address, server.port).to_string()
    };
    match socket {
        None => (Finding::Good, format!("the fallback ({id}), to {to}")),
        Some(socket) if socket.may_be_ipv6_only => {
            let detail = format!(
                "the fallback ({id}), to {to}, unless the pod's socket at {} also receives IPv4",
                socket.address
            );
            (Finding::Doubt, detail)
        }
        Some(socket) => {
            let detail = format!(
                "not the fallback ({id}), because the pod has a socket at {}: {}",
                socket.address,
                left_to_the_pod()
            );
            (Finding::End, detail)
        }
    }
}

fn mtu_detail(mtu: u32, family: Family, protocol: FlowProtocol) -> String {
    if mtu == u32::MAX {
        return "any packet fits".to_owned();
    }
    let headers = match family {
        Family::V4 => 20 + 20,
        Family::V6 => 40 + 20,
    };
    if protocol == FlowProtocol::Transport(Protocol::Tcp) {
        let size = mtu.saturating_sub(headers);
        format!("packets up to {mtu} bytes; segments are clamped to {size}")
    } else {
        format!("packets up to {mtu} bytes")
    }
}
