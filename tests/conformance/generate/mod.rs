//! Generates scripts from a seed.

mod echo;
mod errors;
mod fragments;
mod headers;
mod outside;
mod sctp;
mod tcp;
mod udp;

use egress_tests::addresses::Network;
use fastrand::Rng;

use crate::family::Family;
use crate::recipe::{Body, Recipe};
use crate::script::{Event, Flow, PortChoice, Script, Service};
use crate::wire::Side;

/// The script with this number, among those generated from `seed`.
pub fn script(seed: u64, number: u64, family: Family) -> Script {
    // Seeds that differ little would give similar generators.
    let mut seeds = Rng::with_seed(seed);
    let base = seeds.u64(..);
    let rng = Rng::with_seed(base ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut writer = Writer::new(rng, family);
    match writer.rng.u8(..100) {
        0..36 => tcp::write(&mut writer),
        36..56 => udp::write(&mut writer),
        56..64 => sctp::write(&mut writer),
        64..72 => echo::write(&mut writer),
        72..82 => fragments::write(&mut writer),
        82..92 => headers::write(&mut writer),
        _ => outside::write(&mut writer),
    }
    writer.script
}

struct Writer {
    rng: Rng,
    script: Script,
}

impl Writer {
    fn new(rng: Rng, family: Family) -> Self {
        Self {
            rng,
            script: Script {
                kind: "",
                family,
                flows: Vec::new(),
                events: Vec::new(),
            },
        }
    }

    fn network(&self) -> Network {
        self.script.family.network()
    }

    /// Adds a flow to a service, in most cases from a port that is preserved.
    fn flow(&mut self, service: Service) -> usize {
        let port = match self.rng.u8(..40) {
            0 => PortChoice::Low,
            1 => PortChoice::Ephemeral(0),
            _ => PortChoice::Kept(0),
        };
        self.flow_from(0, port, service)
    }

    fn flow_from(&mut self, client: u8, port: PortChoice, service: Service) -> usize {
        self.script.flows.push(Flow {
            client,
            port,
            service,
        });
        self.script.flows.len() - 1
    }

    fn tcp_service(&mut self) -> Service {
        let network = self.network();
        match self.rng.u8(..8) {
            0..4 => Service::Rule(network.http()),
            4..7 => Service::Rule(network.tls()),
            _ => Service::Port(9_000),
        }
    }

    fn udp_service(&mut self) -> Service {
        match self.rng.u8(..8) {
            0..6 => Service::Rule(self.network().datagram()),
            _ => Service::Port(9_000),
        }
    }

    fn send(&mut self, side: Side, flow: usize, what: &'static str, recipe: Recipe) {
        self.script.events.push(Event {
            side,
            flow,
            what,
            recipe,
        });
    }

    /// A packet with the small variations of real ones.
    fn recipe(&mut self, body: Body) -> Recipe {
        let mut recipe = Recipe::of(body);
        recipe.ttl = *self.choose(&[64, 64, 63, 128, 255, 30, 3]);
        recipe.tos = *self.choose(&[0, 0, 0, 0x02, 0x10, 0xb8]);
        recipe.id = self.rng.u16(1..);
        recipe.df = self.rng.u8(..4) > 0;
        recipe
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.rng.u8(..100) < percent
    }

    fn choose<'o, T>(&mut self, options: &'o [T]) -> &'o T {
        &options[self.rng.usize(..options.len())]
    }

    fn either_side(&mut self) -> Side {
        if self.rng.bool() {
            Side::Cluster
        } else {
            Side::Outside
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_script_is_the_same_each_time_and_another_for_another_number_or_seed() {
        let text = |seed, number| format!("{:?}", script(seed, number, Family::V4));
        assert_eq!(text(1, 2), text(1, 2));
        assert_ne!(text(1, 2), text(1, 3));
        assert_ne!(text(1, 2), text(2, 2));
    }

    #[test]
    fn every_kind_of_script_comes_up_in_either_family_and_sends_something() {
        for family in Family::ALL {
            let mut kinds = BTreeSet::new();
            for number in 0..500 {
                let script = script(1, number, family);
                assert!(!script.events.is_empty(), "script {number}");
                assert!(
                    script
                        .events
                        .iter()
                        .all(|event| event.flow < script.flows.len())
                );
                kinds.insert(script.kind);
            }
            let all = [
                "echo",
                "fragments",
                "headers",
                "outside",
                "sctp",
                "tcp",
                "udp",
            ];
            assert_eq!(kinds, BTreeSet::from(all));
        }
    }
}
