//! Scripts: the packets that clients and servers send, in order.

use std::net::{IpAddr, SocketAddr};

use egress_tests::addresses::Rule;

use crate::family::Family;
use crate::recipe::{Ends, Recipe};
use crate::wire::Side;

/// A sequence of packets of one or a few flows, independent of other scripts.
#[derive(Clone, Debug)]
pub struct Script {
    /// The subject of the script.
    pub kind: &'static str,
    pub family: Family,
    pub flows: Vec<Flow>,
    /// The packets, in order.
    pub events: Vec<Event>,
}

/// The client, its port, and the service of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    /// The index of one of the script's two clients.
    pub client: u8,
    pub port: PortChoice,
    /// The service to which it connects.
    pub service: Service,
}

/// The choice of a client's port, with an offset below 4.
#[derive(Clone, Copy, Debug)]
pub enum PortChoice {
    /// A port that both dataplanes preserve if it is free.
    Kept(u16),
    /// A port in the pod's local port range, which our router does not preserve.
    Ephemeral(u16),
    /// A port below 512, which our router does not preserve.
    Low,
}

/// A service to which a client connects.
#[derive(Clone, Copy, Debug)]
pub enum Service {
    /// A redirect rule.
    Rule(Rule),
    /// A port without a rule, for the fallback or the pod.
    Port(u16),
    /// Echo.
    Echo,
}

/// A packet that a host sends.
#[derive(Clone, Debug)]
pub struct Event {
    /// The side on which it arrives at the router.
    pub side: Side,
    /// The index of the flow that provides its ends.
    pub flow: usize,
    /// What the packet is, for people and for the known differences.
    pub what: &'static str,
    pub recipe: Recipe,
}

/// Numbers that make the run of a script independent of all others in the same labs.
#[derive(Clone, Copy, Debug)]
pub struct Slot(pub u32);

impl Slot {
    /// The number of slots.
    pub const COUNT: u32 = 7_900;
    const CLIENTS: u32 = 48;

    fn client(self, index: u8) -> u8 {
        (self.0 % Self::CLIENTS) as u8 * 2 + index
    }

    /// A port that neither router allocates: ours none below 1024, the kernel's none of these for client ports below
    /// 512 or above 1023.
    pub fn port_of_nobody(self) -> u16 {
        600 + (self.0 % 400) as u16
    }

    /// An identification for fragments. Both routers remember it for some time.
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

    /// The server of the service, or the address that it would have.
    pub fn server(&self, family: Family, port: u16) -> SocketAddr {
        match self.service {
            Service::Rule(rule) => rule.server(),
            Service::Port(port) => SocketAddr::new(family.network().fallback_server.address, port),
            Service::Echo => SocketAddr::new(family.network().fallback_server.address, port),
        }
    }

    /// The ends of a packet that arrives on this side, if the flow has `nat_port`.
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
    /// The event's packets in a lab where the flow has `nat_port`, and their identification.
    pub fn packets(&self, script: &Script, slot: Slot, nat_port: u16) -> (Vec<Vec<u8>>, u16) {
        let flow = &script.flows[self.flow];
        let ends = flow.ends(script.family, slot, self.side, nat_port);
        let mut recipe = self.recipe.clone();
        if !recipe.fragments.is_empty() {
            recipe.id = slot.fragment_id(recipe.id);
        }
        (recipe.packets(script.family, ends), recipe.id)
    }

    /// The number of packets.
    pub fn packet_count(&self) -> u64 {
        self.recipe.fragments.len().max(1) as u64
    }
}
