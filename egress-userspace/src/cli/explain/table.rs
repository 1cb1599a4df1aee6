//! Room for a connection: a flow entry, and a free NAT port towards its server.

use std::collections::HashSet;

use egress_api::Family;
use egress_common::{NatRange, Outcome, Port};

use super::{
    args::Args,
    explanation::{Explanation, Finding},
};
use crate::dataplane::{Endpoint, FlowReport};

/// The flows that matter to a connection.
#[derive(Debug, Default)]
pub struct Table {
    /// Flows of the family.
    pub flows: usize,
    /// Flows of this client to this port.
    pub of_client: usize,
    /// NAT ports in use towards the server.
    ports: HashSet<u16>,
}

impl Table {
    /// Counts the flows that matter to a connection to `server`.
    pub fn of(
        flows: impl Iterator<Item = FlowReport>,
        args: &Args,
        server: Endpoint,
        range: NatRange,
    ) -> Self {
        let family = Family::of(args.client);
        let mut table = Self::default();
        for flow in flows.filter(|flow| Family::of(flow.client.address) == family) {
            table.flows += 1;
            if flow.protocol != args.protocol.name() {
                continue;
            }
            // A ping's identifier is the client's port.
            let port = if args.protocol.is_echo() {
                flow.client.port
            } else {
                flow.router.port
            };
            if flow.client.address == args.client && port == args.port {
                table.of_client += 1;
            }
            if flow.server == server && range.contains(Port::new(flow.reserved.port)) {
                table.ports.insert(flow.reserved.port);
            }
        }
        table
    }

    /// Adds the step about the flow table. `expendable` returns how many flows of a full table may be evicted. Returns
    /// `true` if there may be room.
    pub fn note_room<E>(
        &self,
        explanation: &mut Explanation,
        max_flows: u32,
        expendable: impl FnOnce() -> Result<usize, E>,
    ) -> Result<bool, E> {
        let flows = format!("{} of {max_flows} flows", self.flows);
        if self.flows < max_flows as usize {
            return Ok(explanation.note("table", Finding::Good, flows));
        }
        Ok(match expendable()? {
            0 => {
                let outcome = Outcome::FlowTableFull.name();
                let detail = format!("{flows}, full, and none can be evicted: dropped ({outcome})");
                explanation.note("table", Finding::End, detail)
            }
            number => {
                let detail = format!(
                    "{flows}, full: one of the {number} that are unestablished or finished must be evicted"
                );
                explanation.note("table", Finding::Doubt, detail)
            }
        })
    }

    /// Adds the step about NAT ports. Returns `true` if one is free towards the server.
    pub fn note_ports(&self, explanation: &mut Explanation, args: &Args, range: NatRange) -> bool {
        let all = range.len();
        let (name, what) = if args.protocol.is_echo() {
            ("nat id", "identifier")
        } else {
            ("nat port", "port")
        };
        let free = (all as usize).saturating_sub(self.ports.len());
        if free == 0 {
            let outcome = Outcome::NoFreePort.name();
            let detail = format!("none of {all} is free towards this server: dropped ({outcome})");
            return explanation.note(name, Finding::End, detail);
        }
        let detail = format!(
            "{free} of {all} free towards this server; the client's own {what} is kept if it is free"
        );
        explanation.note(name, Finding::Good, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_table_ends_the_connection_unless_a_flow_can_be_evicted() {
        let table = Table {
            flows: 2,
            ..Table::default()
        };
        let finding = |max_flows, expendable| {
            let mut explanation = Explanation::new();
            let expendable = || Ok::<_, ()>(expendable);
            let proceeds = table
                .note_room(&mut explanation, max_flows, expendable)
                .unwrap();
            assert_eq!(explanation.forwarded, proceeds);
            explanation.steps[0].finding
        };
        assert_eq!(finding(3, 0), Finding::Good);
        assert_eq!(finding(2, 1), Finding::Doubt);
        assert_eq!(finding(2, 0), Finding::End);
    }
}
