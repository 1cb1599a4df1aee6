//! `egress-router explain`: what would happen to a new connection, and why.

use std::{collections::HashSet, fmt::Write as _, net::IpAddr, process::ExitCode};

use egress_common::Side;
use egress_userspace::{
    dataplane::{FlowReport, Instance, RuleReport},
    interface::{InterfaceError, Interfaces},
    kernel,
    spec::Family,
};
use serde::Serialize;

use super::{
    instance,
    output::{self, Output},
};
use crate::exit;

/// Tell what would happen to a new connection, and why
///
/// Follows a connection from CLIENT to PORT of the running router step by step, by what the router and the kernel have
/// now. Nothing is sent. The last line says whether it would be forwarded.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  egress-router explain 10.128.0.5 8080 tcp
  egress-router explain 2001:db8:1::5 443 tcp --output json | jq .forwarded

Exit code 0 if it would be forwarded, 9 if not.")]
pub struct Args {
    /// The client's address
    client: IpAddr,

    /// The port of the router that it connects to
    port: u16,

    /// The protocol
    #[arg(ignore_case = true, value_parser = ["tcp", "udp", "sctp"])]
    protocol: String,

    #[command(flatten)]
    instance: instance::Selector,

    /// How to print the explanation
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// What a step means for the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Finding {
    /// It goes on.
    Good,
    /// It goes on, unless what is said happens.
    Doubt,
    /// It ends here.
    End,
}

#[derive(Debug, Serialize)]
struct Step {
    name: &'static str,
    finding: Finding,
    detail: String,
}

#[derive(Debug, Default, Serialize)]
struct Explanation {
    /// Whether the connection would be forwarded.
    forwarded: bool,
    steps: Vec<Step>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let instance = args.instance.find()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let explanation = runtime.block_on(Explanation::of(&args, &instance))?;
    match args.output {
        Output::Json => output::json(&explanation)?,
        Output::Text => output::text(&explanation.text())?,
    }
    Ok(if explanation.forwarded {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(exit::NOT_FORWARDED)
    })
}

/// The rule that a connection of this family is for: that of its port, else the fallback.
fn find_rule<'r>(
    rules: &'r [RuleReport],
    family: Family,
    port: u16,
    protocol: &str,
) -> Option<&'r RuleReport> {
    let of_family = |rule: &&RuleReport| Family::of(rule.destination.address) == family;
    let is_of_port = |rule: &&RuleReport| {
        rule.port == Some(port) && rule.protocol.eq_ignore_ascii_case(protocol)
    };
    let mut rules = rules.iter().filter(of_family);
    rules
        .clone()
        .find(is_of_port)
        .or_else(|| rules.find(|rule| rule.port.is_none()))
}

/// What the flow table has to say about a connection.
#[derive(Debug, Default)]
struct Table {
    /// Flows of the family.
    flows: usize,
    /// Flows of this client by this port.
    of_client: usize,
    /// NAT ports in use towards the server.
    ports: HashSet<u16>,
}

impl Table {
    fn of(flows: impl Iterator<Item = FlowReport>, args: &Args, server: (IpAddr, u16)) -> Self {
        let family = Family::of(args.client);
        let mut table = Self::default();
        for flow in flows.filter(|flow| Family::of(flow.client.address) == family) {
            table.flows += 1;
            if !flow.protocol.eq_ignore_ascii_case(&args.protocol) {
                continue;
            }
            if flow.client.address == args.client && flow.router.port == args.port {
                table.of_client += 1;
            }
            if (flow.server.address, flow.server.port) == server {
                table.ports.insert(flow.reserved.port);
            }
        }
        table
    }
}

impl Explanation {
    async fn of(args: &Args, instance: &Instance) -> anyhow::Result<Self> {
        let mut explanation = Self::default();
        explanation.forwarded = explanation.follow(args, instance).await?;
        Ok(explanation)
    }

    fn note(&mut self, name: &'static str, finding: Finding, detail: String) {
        self.steps.push(Step {
            name,
            finding,
            detail,
        });
    }

    /// Goes from step to step as far as the connection comes. Whether it is forwarded.
    async fn follow(&mut self, args: &Args, instance: &Instance) -> anyhow::Result<bool> {
        let config = instance.maps.config()?;
        let family = Family::of(args.client);
        let interfaces = Interfaces::connect()?;

        let addresses = interfaces.addresses(config.cluster_ifindex).await?;
        let mut own = addresses.iter().filter(|own| Family::of(**own) == family);
        let Some(address) = own.next() else {
            let detail = format!("the router has no {family} address for clients");
            self.note("router", Finding::End, detail);
            return Ok(false);
        };
        self.note(
            "router",
            Finding::Good,
            format!("{family}, such as {address}"),
        );

        let rules = instance.maps.rules()?;
        let Some(rule) = find_rule(&rules, family, args.port, &args.protocol) else {
            let detail = format!(
                "none for {}/{}, and no {family} fallback: left to the pod's own stack",
                args.port, args.protocol
            );
            self.note("rule", Finding::End, detail);
            return Ok(false);
        };
        let server = (
            rule.destination.address,
            rule.destination.port.unwrap_or(args.port),
        );
        let to = std::net::SocketAddr::from(server);
        if rule.port.is_some() {
            self.note("rule", Finding::Good, format!("{}, to {to}", rule.id));
        } else {
            let detail = format!(
                "the fallback ({}), to {to}, unless a socket of the pod waits there",
                rule.id
            );
            self.note("rule", Finding::Doubt, detail);
        }

        let set = config.rule_set(config.rules_in_force());
        let reserved: IpAddr = match family {
            Family::V4 => set.reserved_v4.into(),
            Family::V6 => set.reserved_v6.into(),
        };
        if reserved.is_unspecified() {
            let detail = format!("no reserved {family} address");
            self.note("source", Finding::End, detail);
            return Ok(false);
        }
        self.note("source", Finding::Good, reserved.to_string());

        let flows = instance.maps.walk_flows(kernel::monotonic_ns())?;
        let table = Table::of(flows, args, server);
        self.note(
            "flows",
            Finding::Good,
            format!("{} of this client by this port now", table.of_client),
        );
        if !self.find_room(&table, config.max_flows, config.nat_range.len()) {
            return Ok(false);
        }
        let mtu = config.mtu(Side::Cluster).min(config.mtu(Side::Egress));
        self.note(
            "mtu",
            Finding::Good,
            mtu_detail(mtu, family, &args.protocol),
        );

        let out = self
            .find_way("way out", &interfaces, config.egress_ifindex, server.0)
            .await?;
        let back = self
            .find_way("way back", &interfaces, config.cluster_ifindex, args.client)
            .await?;
        Ok(out && back)
    }

    /// Room in the flow table, and a NAT port. Whether there may be both.
    fn find_room(&mut self, table: &Table, max_flows: u32, ports: u32) -> bool {
        let is_full = table.flows >= max_flows as usize;
        let (finding, full) = if is_full {
            (
                Finding::Doubt,
                ", full: one that was only begun or is over has to make room",
            )
        } else {
            (Finding::Good, "")
        };
        let detail = format!("{} of {max_flows} flows{full}", table.flows);
        self.note("table", finding, detail);

        let free = (ports as usize).saturating_sub(table.ports.len());
        let detail = format!(
            "{free} of {ports} free towards this server; the client's own if it is among them"
        );
        let finding = if free == 0 {
            Finding::End
        } else {
            Finding::Good
        };
        self.note("nat port", finding, detail);
        free > 0
    }

    /// The route to `destination` by the interface with this index, and its neighbour. Whether there is a route.
    async fn find_way(
        &mut self,
        name: &'static str,
        interfaces: &Interfaces,
        index: u32,
        destination: IpAddr,
    ) -> anyhow::Result<bool> {
        let next_hop = match interfaces.next_hop(index, destination).await {
            Ok(next_hop) => next_hop,
            // The kernel answers so where it has no route.
            Err(InterfaceError::Netlink(error)) => {
                self.note(
                    name,
                    Finding::End,
                    format!("no route to {destination}: {error}"),
                );
                return Ok(false);
            }
            Err(error) => return Err(error.into()),
        };
        let Some(next_hop) = next_hop else {
            let detail =
                format!("no route to {destination} by this interface that can be told here");
            self.note(name, Finding::Doubt, detail);
            return Ok(true);
        };
        let neighbours = interfaces.neighbours().await?;
        if let Some(mac) = neighbours.get(&(index, next_hop)) {
            let mac = mac.map(|octet| format!("{octet:02x}")).join(":");
            self.note(name, Finding::Good, format!("by {next_hop} ({mac})"));
        } else {
            let detail = format!(
                "by {next_hop}, whose MAC address is not known now: the kernel will ask for it"
            );
            self.note(name, Finding::Doubt, detail);
        }
        Ok(true)
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for step in &self.steps {
            let mark = match step.finding {
                Finding::Good => ' ',
                Finding::Doubt => '?',
                Finding::End => '!',
            };
            let _ = writeln!(text, "{mark} {:<9}  {}", step.name, step.detail);
        }
        text.push_str(if self.forwarded {
            "forwarded"
        } else {
            "not forwarded"
        });
        text
    }
}

fn mtu_detail(mtu: u32, family: Family, protocol: &str) -> String {
    if mtu == u32::MAX {
        return "any packet fits".to_owned();
    }
    let headers = match family {
        Family::V4 => 20 + 20,
        Family::V6 => 40 + 20,
    };
    if protocol.eq_ignore_ascii_case("tcp") {
        let size = mtu.saturating_sub(headers);
        format!("packets up to {mtu} bytes; segments are clamped to {size}")
    } else {
        format!("packets up to {mtu} bytes")
    }
}

#[cfg(test)]
mod tests {
    use egress_userspace::dataplane::{Target, TrafficReport};

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
    fn a_rule_of_the_family_goes_before_the_fallback() {
        let rules = [
            rule(0, None, "203.0.113.99"),
            rule(1, Some(8080), "2001:db8::1"),
            rule(2, Some(8080), "203.0.113.26"),
        ];
        let found =
            |family, port, protocol| find_rule(&rules, family, port, protocol).map(|rule| rule.id);
        assert_eq!(found(Family::V4, 8080, "tcp"), Some(2));
        assert_eq!(found(Family::V6, 8080, "tcp"), Some(1));
        assert_eq!(found(Family::V4, 8080, "udp"), Some(0));
        assert_eq!(found(Family::V6, 8080, "udp"), None);
    }

    #[test]
    fn without_a_free_port_it_ends_and_in_a_full_table_it_may() {
        let mut explanation = Explanation::default();
        let table = Table {
            flows: 2,
            of_client: 0,
            ports: HashSet::from([1024, 1025]),
        };
        assert!(explanation.find_room(&table, 2, 3));
        assert_eq!(explanation.steps[0].finding, Finding::Doubt);
        assert!(!explanation.find_room(&table, 3, 2));
        assert_eq!(explanation.steps[3].finding, Finding::End);
    }
}
