//! The lab's network.

use anyhow::{Context as _, Result, ensure};

use crate::addresses::{
    self, CLUSTER, GATEWAY, GATEWAY_UPLINK, MAX_CLIENTS, NEIGHBOUR, ROUTER_ETH0, ROUTER_NET1,
    SERVERS, SERVERS_UPLINK,
};
use crate::namespace::Namespace;

/// A drawing of the lab, for people.
pub const DRAWING: &str = include_str!("topology.txt");

/// A cluster's network with a router pod, and what is beyond it.
///
#[doc = concat!("```text\n", include_str!("topology.txt"), "```")]
///
/// Each box is a network namespace, and so is each client and the neighbour.
/// The links are veth pairs with their offloads on, as between a pod and its
/// node. `br0` (the cluster's side of the node) joins the clients and the
/// router's `eth0`; the router's `net1` is a macvlan in bridge mode over the
/// node's `ext0`; the gateway's bridge `lan0` is the external network's switch.
///
/// The router's default route leads out of `net1`. Its IP forwarding is off.
#[derive(Debug)]
pub struct Lab {
    clients: Vec<Namespace>,
    node: Namespace,
    router: Namespace,
    gateway: Namespace,
    neighbour: Namespace,
    servers: Namespace,
}

impl Lab {
    /// A lab with one client.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Chooses how large the lab is.
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    /// The first client.
    pub fn client(&self) -> &Namespace {
        &self.clients[0]
    }

    /// All clients; the address of each is [`addresses::client`] of its index.
    pub fn clients(&self) -> &[Namespace] {
        &self.clients
    }

    /// The node: `br0` towards the cluster, with the port `router` towards the
    /// router's `eth0`, and `ext0` towards the gateway. A capture of what enters
    /// the cluster is one on `router`: `br0` shows only what is for the node.
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// The router pod: `eth0` and `net1`.
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// The gateway: `lan0` towards the external network, with the port `node0`
    /// towards the router's node, and `uplink0` towards the servers.
    pub fn gateway(&self) -> &Namespace {
        &self.gateway
    }

    /// A host beside the router on the external network; its interface is
    /// `eth0`. It routes the cluster's addresses through the router.
    pub fn neighbour(&self) -> &Namespace {
        &self.neighbour
    }

    /// The servers beyond the gateway; their interface is `uplink0`.
    pub fn servers(&self) -> &Namespace {
        &self.servers
    }
}

/// Builds a [`Lab`].
#[derive(Clone, Debug)]
pub struct LabBuilder {
    clients: u8,
}

impl Default for LabBuilder {
    fn default() -> Self {
        Self { clients: 1 }
    }
}

impl LabBuilder {
    /// How many clients there are, each in a namespace of its own.
    #[must_use]
    pub fn clients(mut self, clients: u8) -> Self {
        self.clients = clients;
        self
    }

    /// Makes the namespaces and joins them.
    ///
    /// # Errors
    /// Without root, or on a kernel without veth, bridge or macvlan; see
    /// [`crate::requirements`].
    pub fn build(self) -> Result<Lab> {
        ensure!(
            (1..=MAX_CLIENTS).contains(&self.clients),
            "a lab of {} clients: expected 1 to {MAX_CLIENTS}",
            self.clients
        );
        let lab = Lab {
            clients: (0..self.clients)
                .map(|index| Namespace::new(&format!("client {index}")))
                .collect::<Result<_>>()?,
            node: Namespace::new("node")?,
            router: Namespace::new("router")?,
            gateway: Namespace::new("gateway")?,
            neighbour: Namespace::new("neighbour")?,
            servers: Namespace::new("servers")?,
        };
        lab.join().context("joining the lab's namespaces")?;
        Ok(lab)
    }
}

impl Lab {
    fn join(&self) -> Result<()> {
        self.gateway.ip([
            "link add lan0 type bridge".to_owned(),
            veth("uplink0", &self.servers, "uplink0"),
            veth("beside0", &self.neighbour, "eth0"),
            "link set beside0 master lan0 up".to_owned(),
        ])?;
        self.join_node()?;
        self.configure_clients()?;
        self.configure_router()?;
        self.configure_external()?;
        // Bridged frames are the bridge's alone, as on a switch.
        for switch in [&self.node, &self.gateway] {
            let name = "net.bridge.bridge-nf-call-iptables";
            if switch.sysctl(name).is_ok() {
                switch.set_sysctl(name, "0")?;
            }
        }
        Ok(())
    }

    fn join_node(&self) -> Result<()> {
        let mut node = vec![
            "link add br0 type bridge".to_owned(),
            "link set br0 up".to_owned(),
            veth("router", &self.router, "eth0"),
            "link set router master br0 up".to_owned(),
            veth("ext0", &self.gateway, "node0"),
            "link set ext0 up".to_owned(),
            format!(
                "link add link ext0 name net1 netns {} type macvlan mode bridge",
                self.router.path().display()
            ),
        ];
        for (index, client) in self.clients.iter().enumerate() {
            node.push(veth(&format!("client{index}"), client, "eth0"));
            node.push(format!("link set client{index} master br0 up"));
        }
        self.node.ip(node)
    }

    fn configure_clients(&self) -> Result<()> {
        for (index, client) in (0..).zip(&self.clients) {
            client.ip([
                format!("address add {} dev eth0", addresses::client(index)),
                "link set eth0 up".to_owned(),
            ])?;
        }
        Ok(())
    }

    fn configure_router(&self) -> Result<()> {
        self.router.ip([
            format!("address add {ROUTER_ETH0} dev eth0"),
            "link set eth0 up".to_owned(),
            format!("address add {ROUTER_NET1} dev net1"),
            "link set net1 up".to_owned(),
            format!("route add {CLUSTER} dev eth0"),
            format!("route add default via {} dev net1", GATEWAY.address),
        ])
    }

    fn configure_external(&self) -> Result<()> {
        self.gateway.ip([
            format!("address add {GATEWAY} dev lan0"),
            "link set lan0 up".to_owned(),
            "link set node0 master lan0 up".to_owned(),
            format!("address add {GATEWAY_UPLINK} dev uplink0"),
            "link set uplink0 up".to_owned(),
        ]
        .into_iter()
        .chain(
            SERVERS
                .iter()
                .map(|server| format!("route add {server} via {}", SERVERS_UPLINK.address)),
        ))?;
        self.gateway.set_sysctl("net.ipv4.ip_forward", "1")?;
        self.servers.ip(SERVERS
            .iter()
            .map(|server| format!("address add {server} dev lo"))
            .chain([
                format!("address add {SERVERS_UPLINK} dev uplink0"),
                "link set uplink0 up".to_owned(),
                format!("route add default via {}", GATEWAY_UPLINK.address),
            ]))?;
        self.neighbour.ip([
            format!("address add {NEIGHBOUR} dev eth0"),
            "link set eth0 up".to_owned(),
            format!("route add {CLUSTER} via {}", ROUTER_NET1.address),
            format!("route add default via {}", GATEWAY.address),
        ])
    }
}

/// The `ip` line for a veth pair: `name` here, `peer_name` in `peer`.
fn veth(name: &str, peer: &Namespace, peer_name: &str) -> String {
    let path = peer.path();
    format!(
        "link add {name} type veth peer name {peer_name} netns {}",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip_unless_lab_works;

    #[test]
    fn the_router_has_both_interfaces_and_forwards_nothing() -> Result<()> {
        skip_unless_lab_works!();
        let lab = Lab::new()?;
        let eth0 = lab.router().interface("eth0")?;
        let net1 = lab.router().interface("net1")?;
        assert!(eth0.addresses.contains(&ROUTER_ETH0.address));
        assert!(net1.addresses.contains(&ROUTER_NET1.address));
        assert_ne!(eth0.mac, net1.mac);
        assert_eq!(lab.router().sysctl("net.ipv4.ip_forward")?, "0");
        Ok(())
    }

    #[test]
    fn too_many_clients_are_refused() {
        assert!(Lab::builder().clients(MAX_CLIENTS + 1).build().is_err());
        assert!(Lab::builder().clients(0).build().is_err());
    }
}
