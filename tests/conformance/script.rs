//! Scripts: what clients and servers send, in order.

use std::net::{IpAddr, SocketAddr};

use egress_tests::addresses::Rule;

use crate::family::Family;
use crate::recipe::{Ends, Recipe};
use crate::wire::Side;

/// A sequence of packets of one or a few flows, which depends on no other script.
#[derive(Clone, Debug)]
pub struct Script {
    /// What it is about.
    pub kind: &'static str,
    /// Its family.
    pub family: Family,
    /// Its flows.
    pub flows: Vec<Flow>,
    /// What is sent, in order.
    pub events: Vec<Event>,
}

/// Who talks to whom.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// The first of the script's two clients, or the second.
    pub client: u8,
    /// The client's port.
    pub port: PortChoice,
    /// What it connects to.
    pub service: Service,
}

/// A client's port, with an offset below 4.
#[derive(Clone, Copy, Debug)]
pub enum PortChoice {
    /// One that both dataplanes keep where it is free.
    Kept(u16),
    /// One of those that the pod's own sockets use, which our router does not keep.
    Ephemeral(u16),
    /// One below 512, which our router does not keep.
    Low,
}

/// What a client connects to.
#[derive(Clone, Copy, Debug)]
pub enum Service {
    /// What a rule redirects.
    Rule(Rule),
    /// A port without a rule: the fallback's, or the pod's.
    Port(u16),
    /// Echo.
    Echo,
}

/// One thing that somebody sends.
#[derive(Clone, Debug)]
pub struct Event {
    /// Where it arrives at the router.
    pub side: Side,
    /// Which of the script's flows gives it its ends.
    pub flow: usize,
    /// What it is, for people and for the table of known differences.
    pub what: &'static str,
    /// The packet.
    pub recipe: Recipe,
}

/// What makes a run of a script independent of all others in the same labs.
#[derive(Clone, Copy, Debug)]
pub struct Slot(pub u32);

impl Slot {
    /// How many there are.
    pub const COUNT: u32 = 7_900;
    const CLIENTS: u32 = 48;

    fn client(self, index: u8) -> u8 {
        (self.0 % Self::CLIENTS) as u8 * 2 + index
    }

    /// A port that neither router gives to a flow: ours none below 1024, the kernel's none of these
    /// to clients whose own is below 512 or above 1023.
    pub fn port_of_nobody(self) -> u16 {
        600 + (self.0 % 400) as u16
    }

    /// An identification for fragments, which both routers remember for some time.
    fn fragment_id(self, ordinal: u16) -> u16 {
        const OF_A_SLOT: u16 = 8;
        (self.0 % Self::COUNT) as u16 * OF_A_SLOT + ordinal % OF_A_SLOT
    }

    fn port(self, choice: PortChoice) -> u16 {
        let slot = (self.0 % Self::COUNT) as u16;
        match choice {
            PortChoice::Kept(offset) => 1_100 + slot * 4 + offset,
            PortChoice::Ephemeral(offset) => 32_768 + slot * 3 + offset,
            PortChoice::Low => 1 + slot % 500,
        }
    }
}

impl Flow {
    /// The client's address and port.
    pub fn client(&self, family: Family, slot: Slot) -> SocketAddr {
        let client = family.network().client(slot.client(self.client));
        SocketAddr::new(client.address, slot.port(self.port))
    }

    /// The server, or who it would be.
    pub fn server(&self, family: Family, port: u16) -> SocketAddr {
        match self.service {
            Service::Rule(rule) => rule.server(),
            Service::Port(port) => SocketAddr::new(family.network().fallback_server.address, port),
            Service::Echo => SocketAddr::new(family.network().fallback_server.address, port),
        }
    }

    /// The ends of a packet that arrives at this side, where the flow has `nat_port`.
    pub fn ends(&self, family: Family, slot: Slot, side: Side, nat_port: u16) -> Ends {
        let network = family.network();
        match side {
            Side::Cluster => {
                let client = self.client(family, slot);
                let port = match self.service {
                    Service::Rule(rule) => rule.port,
                    Service::Port(port) => port,
                    Service::Echo => client.port(),
                };
                Ends {
                    source: client,
                    destination: network.on_eth0(port),
                }
            }
            Side::Outside => Ends {
                source: self.server(family, nat_port),
                destination: SocketAddr::new(network.router_net1.address, nat_port),
            },
        }
    }

    /// Whether a packet that leaves on the outside goes to this flow's server.
    pub fn is_to_server(&self, family: Family, destination: IpAddr, port: u16) -> bool {
        self.server(family, port) == SocketAddr::new(destination, port)
    }
}

impl Event {
    /// Its packets in a lab where the flow has `nat_port`, and their identification.
    pub fn packets(&self, script: &Script, slot: Slot, nat_port: u16) -> (Vec<Vec<u8>>, u16) {
        let flow = &script.flows[self.flow];
        let ends = flow.ends(script.family, slot, self.side, nat_port);
        let mut recipe = self.recipe.clone();
        if !recipe.fragments.is_empty() {
            recipe.id = slot.fragment_id(recipe.id);
        }
        (recipe.packets(script.family, ends), recipe.id)
    }

    /// How many packets it is.
    pub fn packet_count(&self) -> u64 {
        self.recipe.fragments.len().max(1) as u64
    }
}
