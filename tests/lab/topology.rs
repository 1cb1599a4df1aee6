//! The lab's network.

use anyhow::{Context as _, Result, ensure};

use crate::addresses::{MAX_CLIENTS, NETWORKS};
use crate::links::{ClusterLink, EgressLink};
use crate::namespace::Namespace;
use crate::wait::eventually;

/// A drawing of the lab.
pub const DRAWING: &str = include_str!("topology.txt");

/// A cluster network with a router pod, and the external network beyond it.
///
#[doc = concat!("```text\n", include_str!("topology.txt"), "```")]
///
/// Each box is a network namespace, as are the neighbour and each client. Links are veth pairs with offloads enabled,
/// as between a pod and its node. The node's bridge `br0` joins the clients and the router's `eth0`. The router's
/// `net1` is a macvlan in bridge mode on the node's `ext0`. The gateway's bridge `lan0` is the switch of the external
/// network. [`LabBuilder`] can give the router interfaces of other kinds.
///
/// Every host has an address of each family. The router's default routes use `net1`, and IP forwarding is off.
#[derive(Debug)]
pub struct Lab {
    clients: Vec<Namespace>,
    node: Namespace,
    router: Namespace,
    gateway: Namespace,
    neighbour: Namespace,
    servers: Namespace,
    eth0: ClusterLink,
    net1: EgressLink,
}

impl Lab {
    /// Builds a lab with one client.
    pub fn new() -> Result<Self> {
        Self::builder().build()
    }

    /// Returns a builder for labs of other sizes and interfaces.
    pub fn builder() -> LabBuilder {
        LabBuilder::default()
    }

    /// The first client.
    pub fn client(&self) -> &Namespace {
        &self.clients[0]
    }

    /// All clients. The addresses of each are [`Network::client`] of its index.
    ///
    /// [`Network::client`]: crate::addresses::Network::client
    pub fn clients(&self) -> &[Namespace] {
        &self.clients
    }

    /// The node: `br0` and its port `router` lead to the router's `eth0`, and `ext0` leads to the gateway. To capture
    /// what enters the cluster, use `router`: `br0` sees only packets for the node.
    pub fn node(&self) -> &Namespace {
        &self.node
    }

    /// The router pod: `eth0` and `net1`.
    pub fn router(&self) -> &Namespace {
        &self.router
    }

    /// The gateway: `lan0` and its port `node0` lead to the router's node, and `uplink0` leads to the servers.
    pub fn gateway(&self) -> &Namespace {
        &self.gateway
    }

    /// A host beside the router on the external network, with interface `eth0`. It routes the cluster's addresses
    /// through the router.
    pub fn neighbour(&self) -> &Namespace {
        &self.neighbour
    }

    /// The servers beyond the gateway, with interface `uplink0`.
    pub fn servers(&self) -> &Namespace {
        &self.servers
    }
}

/// Builds a [`Lab`].
#[derive(Clone, Debug)]
pub struct LabBuilder {
    clients: u8,
    eth0: ClusterLink,
    net1: EgressLink,
}

impl Default for LabBuilder {
    fn default() -> Self {
        Self {
            clients: 1,
            eth0: ClusterLink::default(),
            net1: EgressLink::default(),
        }
    }
}

impl LabBuilder {
    /// The number of clients, each in its own namespace.
    #[must_use]
    pub fn clients(mut self, clients: u8) -> Self {
        self.clients = clients;
        self
    }

    /// The kind of the router's `eth0`. Some kernels [lack](ClusterLink::missing) some kinds.
    #[must_use]
    pub fn eth0(mut self, link: ClusterLink) -> Self {
        self.eth0 = link;
        self
    }

    /// The kind of the router's `net1`. Some kernels [lack](EgressLink::missing) some kinds.
    #[must_use]
    pub fn net1(mut self, link: EgressLink) -> Self {
        self.net1 = link;
        self
    }

    /// Creates the namespaces and joins them.
    ///
    /// # Errors
    /// Without root, or on a kernel without veth, bridge or macvlan; see [`crate::requirements`].
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
            eth0: self.eth0,
            net1: self.net1,
        };
        lab.join().context("joining the lab's namespaces")?;
        Ok(lab)
    }
}

impl Lab {
    fn join(&self) -> Result<()> {
        // Only interfaces created later get these defaults.
        for host in self.hosts() {
            trust_addresses(host)?;
        }
        self.gateway.ip([
            "link add lan0 type bridge".to_owned(),
            veth("uplink0", &self.servers, "uplink0"),
            veth("beside0", &self.neighbour, "eth0"),
            "link set beside0 master lan0 up".to_owned(),
        ])?;
        self.join_node()?;
        if !self.eth0.is_bridged() {
            self.route_by_the_node()?;
        }
        self.configure_clients()?;
        self.configure_router()?;
        self.configure_gateway()?;
        self.configure_servers()?;
        self.configure_neighbour()?;
        for switch in [&self.node, &self.gateway] {
            keep_frames_to_the_bridge(switch)?;
        }
        for host in self.hosts() {
            wait_for_addresses(host)?;
        }
        Ok(())
    }

    fn hosts(&self) -> impl Iterator<Item = &Namespace> {
        let others = [
            &self.node,
            &self.router,
            &self.gateway,
            &self.neighbour,
            &self.servers,
        ];
        self.clients.iter().chain(others)
    }

    fn join_node(&self) -> Result<()> {
        let mut node = vec![
            "link add br0 type bridge".to_owned(),
            "link set br0 up".to_owned(),
            veth("ext0", &self.gateway, "node0"),
            "link set ext0 up".to_owned(),
        ];
        for (index, client) in self.clients.iter().enumerate() {
            node.push(veth(&format!("client{index}"), client, "eth0"));
            node.push(format!("link set client{index} master br0 up"));
        }
        self.node.ip(node)?;
        self.net1.add(&self.node, "ext0", &self.router, "net1")?;
        self.eth0.add(&self.node, "router", &self.router, "eth0")?;
        if self.eth0.is_bridged() {
            return self.node.ip(["link set router master br0 up"]);
        }
        self.node.ip(["link set router up"])
    }

    /// Makes the node route between the clients and the router pod. To the clients the router still appears to be on
    /// the bridge.
    fn route_by_the_node(&self) -> Result<()> {
        self.node.set_sysctl("net.ipv4.ip_forward", "1")?;
        self.node.set_sysctl("net.ipv6.conf.all.forwarding", "1")?;
        self.node.set_sysctl("net.ipv4.conf.br0.proxy_arp", "1")?;
        self.node.set_sysctl("net.ipv6.conf.br0.proxy_ndp", "1")?;
        for network in NETWORKS {
            let pod = network.router_eth0.address;
            self.node.ip([
                format!("address add {} dev br0", network.node),
                format!("route add {pod} dev router"),
                // For IPv4, proxy ARP follows the route.
                format!("neighbour add proxy {pod} dev br0"),
            ])?;
        }
        Ok(())
    }

    fn configure_clients(&self) -> Result<()> {
        for (index, client) in (0..).zip(&self.clients) {
            let addresses =
                NETWORKS.map(|network| format!("address add {} dev eth0", network.client(index)));
            client.ip(addresses.into_iter().chain(["link set eth0 up".to_owned()]))?;
        }
        Ok(())
    }

    fn configure_router(&self) -> Result<()> {
        let mut lines = vec!["link set eth0 up".to_owned(), "link set net1 up".to_owned()];
        for network in NETWORKS {
            let gateway = network.gateway.address;
            lines.extend([
                format!("address add {} dev eth0", network.router_eth0),
                format!("address add {} dev net1", network.router_net1),
                format!("route add {} dev eth0", network.cluster),
                format!("route add default via {gateway} dev net1"),
            ]);
        }
        self.router.ip(lines)
    }

    fn configure_gateway(&self) -> Result<()> {
        let mut lines = vec![
            "link set lan0 up".to_owned(),
            "link set node0 master lan0 up".to_owned(),
            "link set uplink0 up".to_owned(),
        ];
        for network in NETWORKS {
            let next_hop = network.servers_uplink.address;
            lines.extend([
                format!("address add {} dev lan0", network.gateway),
                format!("address add {} dev uplink0", network.gateway_uplink),
            ]);
            let servers = network.servers();
            lines.extend(servers.map(|server| format!("route add {server} via {next_hop}")));
        }
        self.gateway.ip(lines)?;
        self.gateway.set_sysctl("net.ipv4.ip_forward", "1")?;
        self.gateway.set_sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    fn configure_servers(&self) -> Result<()> {
        let mut lines = vec!["link set uplink0 up".to_owned()];
        for network in NETWORKS {
            let gateway = network.gateway_uplink.address;
            lines.extend(
                network
                    .servers()
                    .map(|server| format!("address add {server} dev lo")),
            );
            lines.extend([
                format!("address add {} dev uplink0", network.servers_uplink),
                format!("route add default via {gateway}"),
            ]);
        }
        self.servers.ip(lines)
    }

    fn configure_neighbour(&self) -> Result<()> {
        let mut lines = vec!["link set eth0 up".to_owned()];
        for network in NETWORKS {
            let (router, gateway) = (network.router_net1.address, network.gateway.address);
            lines.extend([
                format!("address add {} dev eth0", network.neighbour),
                format!("route add {} via {router}", network.cluster),
                format!("route add default via {gateway}"),
            ]);
        }
        self.neighbour.ip(lines)
    }
}

/// Waits until every IPv6 address of a host is usable. Even without duplicate address detection this takes a moment.
fn wait_for_addresses(host: &Namespace) -> Result<()> {
    eventually(
        &format!("the {} can use its addresses", host.role()),
        || {
            let tentative = host.output("ip", ["-6", "address", "show", "tentative"])?;
            Ok(tentative.is_empty().then_some(()))
        },
    )
}

/// Disables duplicate address detection, which takes a second or two.
fn trust_addresses(host: &Namespace) -> Result<()> {
    host.set_sysctl("net.ipv6.conf.default.accept_dad", "0")
}

/// Keeps the host's packet filters away from bridged frames, as on a hardware switch.
fn keep_frames_to_the_bridge(switch: &Namespace) -> Result<()> {
    for tables in ["iptables", "ip6tables"] {
        let name = format!("net.bridge.bridge-nf-call-{tables}");
        // Without the module, bridged frames are not filtered.
        if switch.sysctl(&name).is_ok() {
            switch.set_sysctl(&name, "0")?;
        }
    }
    Ok(())
}

/// The `ip` line that creates a veth pair: `name` here, `peer_name` in `peer`.
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
    use crate::PATIENCE;
    use crate::{icmp, skip_unless_lab_works};

    #[test]
    fn the_router_has_both_interfaces_and_forwards_nothing() -> Result<()> {
        skip_unless_lab_works!();
        let lab = Lab::new()?;
        let eth0 = lab.router().interface("eth0")?;
        let net1 = lab.router().interface("net1")?;
        for network in NETWORKS {
            assert!(eth0.addresses.contains(&network.router_eth0.address));
            assert!(net1.addresses.contains(&network.router_net1.address));
        }
        assert_ne!(eth0.mac, net1.mac);
        assert_eq!(lab.router().sysctl("net.ipv4.ip_forward")?, "0");
        assert_eq!(lab.router().sysctl("net.ipv6.conf.all.forwarding")?, "0");
        Ok(())
    }

    #[test]
    fn both_families_reach_across_the_lab_at_once() -> Result<()> {
        skip_unless_lab_works!();
        let lab = Lab::new()?;
        for network in NETWORKS {
            icmp::ping(lab.client(), network.router_eth0.address, PATIENCE)?;
            icmp::ping(lab.neighbour(), network.router_net1.address, PATIENCE)?;
            for server in network.servers() {
                icmp::ping(lab.router(), server.address, PATIENCE)?;
            }
        }
        Ok(())
    }

    #[test]
    fn too_many_clients_are_refused() {
        assert!(Lab::builder().clients(MAX_CLIENTS + 1).build().is_err());
        assert!(Lab::builder().clients(0).build().is_err());
    }
}
