//! The lab's addresses and the rules of the tests' specs.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub use egress_api::Protocol;

/// An address with a prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The address, including host bits.
    pub address: IpAddr,
    /// The number of network bits.
    pub length: u8,
}

impl Prefix {
    const fn v4(octets: [u8; 4], length: u8) -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::from_octets(octets)),
            length,
        }
    }

    const fn v6(segments: [u16; 8], length: u8) -> Self {
        Self {
            address: IpAddr::V6(Ipv6Addr::from_segments(segments)),
            length,
        }
    }

    /// Whether `address` belongs to this network.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (ours, theirs, width) = match (self.address, address) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                (u128::from(ours.to_bits()), u128::from(theirs.to_bits()), 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => (ours.to_bits(), theirs.to_bits(), 128),
            _ => return false,
        };
        let host_bits = width - u32::from(self.length);
        ours.checked_shr(host_bits) == theirs.checked_shr(host_bits)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// The lab's addresses of one family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    /// The network of pods and nodes.
    pub cluster: Prefix,
    /// The node on `br0`, if it [routes](crate::ClusterLink::NetkitL3).
    pub node: Prefix,
    /// The router on `eth0`, where clients connect.
    pub router_eth0: Prefix,
    /// The router on `net1`: the reserved source address.
    pub router_net1: Prefix,
    /// The gateway on the external network.
    pub gateway: Prefix,
    /// A host beside the router on the external network.
    pub neighbour: Prefix,
    /// The gateway's end of the link to the servers.
    pub gateway_uplink: Prefix,
    /// The servers' end of the link to the gateway.
    pub servers_uplink: Prefix,
    /// The server of [`Network::http`].
    pub http_server: Prefix,
    /// The server of [`Network::tls`] and [`Network::association`].
    pub tls_server: Prefix,
    /// The server of [`Network::datagram`].
    pub datagram_server: Prefix,
    /// The fallback server, in specs that have one.
    pub fallback_server: Prefix,
}

/// The lab's IPv4 addresses.
pub const V4: Network = Network {
    cluster: Prefix::v4([10, 128, 0, 0], 14),
    node: Prefix::v4([10, 128, 0, 1], 24),
    router_eth0: Prefix::v4([10, 128, 0, 100], 24),
    router_net1: Prefix::v4([192, 168, 12, 99], 24),
    gateway: Prefix::v4([192, 168, 12, 1], 24),
    neighbour: Prefix::v4([192, 168, 12, 50], 24),
    gateway_uplink: Prefix::v4([198, 51, 100, 1], 30),
    servers_uplink: Prefix::v4([198, 51, 100, 2], 30),
    http_server: Prefix::v4([203, 0, 113, 26], 32),
    tls_server: Prefix::v4([203, 0, 113, 27], 32),
    datagram_server: Prefix::v4([10, 0, 0, 99], 32),
    fallback_server: Prefix::v4([203, 0, 113, 99], 32),
};

/// The lab's IPv6 addresses.
pub const V6: Network = Network {
    cluster: Prefix::v6([0xfd00, 0x10, 0x128, 0, 0, 0, 0, 0], 48),
    node: Prefix::v6([0xfd00, 0x10, 0x128, 0, 0, 0, 0, 1], 64),
    router_eth0: Prefix::v6([0xfd00, 0x10, 0x128, 0, 0, 0, 0, 0x100], 64),
    router_net1: Prefix::v6([0x2001, 0xdb8, 0x12, 0, 0, 0, 0, 0x99], 64),
    gateway: Prefix::v6([0x2001, 0xdb8, 0x12, 0, 0, 0, 0, 1], 64),
    neighbour: Prefix::v6([0x2001, 0xdb8, 0x12, 0, 0, 0, 0, 0x50], 64),
    gateway_uplink: Prefix::v6([0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 1], 64),
    servers_uplink: Prefix::v6([0x2001, 0xdb8, 0x100, 0, 0, 0, 0, 2], 64),
    http_server: Prefix::v6([0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x26], 128),
    tls_server: Prefix::v6([0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x27], 128),
    datagram_server: Prefix::v6([0x2001, 0xdb8, 0x1000, 0, 0, 0, 0, 0x99], 128),
    fallback_server: Prefix::v6([0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x99], 128),
};

/// The lab's addresses of both families.
pub const NETWORKS: [Network; 2] = [V4, V6];

/// Whether this is one of the reserved addresses.
pub fn is_reserved(address: IpAddr) -> bool {
    NETWORKS
        .iter()
        .any(|network| network.router_net1.address == address)
}

/// A port of the router without a rule.
pub const UNDEFINED_PORT: u16 = 9090;

/// The number of client addresses below the router's in the cluster's subnet.
pub const MAX_CLIENTS: u8 = 98;

impl Network {
    /// The address of the client with this index, from 0.
    ///
    /// # Panics
    /// If `index` is not below [`MAX_CLIENTS`].
    pub const fn client(&self, index: u8) -> Prefix {
        assert!(index < MAX_CLIENTS, "the lab has addresses for 98 clients");
        let host = 2 + index;
        match self.cluster.address {
            IpAddr::V4(_) => Prefix::v4([10, 128, 0, host], 24),
            IpAddr::V6(_) => Prefix::v6([0xfd00, 0x10, 0x128, 0, 0, 0, 0, host as u16], 64),
        }
    }

    /// All addresses of the servers.
    pub const fn servers(&self) -> [Prefix; 4] {
        [
            self.http_server,
            self.tls_server,
            self.datagram_server,
            self.fallback_server,
        ]
    }

    /// A port of the router's `eth0` address, where clients connect.
    pub const fn on_eth0(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.router_eth0.address, port)
    }

    /// A port of the unspecified address of this family.
    pub const fn on_any(&self, port: u16) -> SocketAddr {
        SocketAddr::new(unspecified(self.cluster.address), port)
    }

    /// 8080/TCP to port 80 of another server.
    pub const fn http(&self) -> Rule {
        Rule {
            protocol: Protocol::Tcp,
            port: 8080,
            destination: self.http_server,
            target_port: 80,
        }
    }

    /// 8443/TCP to port 443 of another server.
    pub const fn tls(&self) -> Rule {
        Rule {
            protocol: Protocol::Tcp,
            port: 8443,
            destination: self.tls_server,
            target_port: 443,
        }
    }

    /// 80/UDP to the same port.
    pub const fn datagram(&self) -> Rule {
        Rule {
            protocol: Protocol::Udp,
            port: 80,
            destination: self.datagram_server,
            target_port: 80,
        }
    }

    /// 5000/SCTP to port 3868 of another server.
    pub const fn association(&self) -> Rule {
        Rule {
            protocol: Protocol::Sctp,
            port: 5000,
            destination: self.tls_server,
            target_port: 3868,
        }
    }
}

/// The unspecified address of the same family.
pub const fn unspecified(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

/// A redirect rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port of the router that clients connect to.
    pub port: u16,
    /// The server that they reach.
    pub destination: Prefix,
    /// The server's port.
    pub target_port: u16,
}

impl Rule {
    /// Where a client connects to: the router's address of the server's family.
    pub const fn service(&self) -> SocketAddr {
        match self.destination.address {
            IpAddr::V4(_) => V4.on_eth0(self.port),
            IpAddr::V6(_) => V6.on_eth0(self.port),
        }
    }

    /// Where the server listens.
    pub const fn server(&self) -> SocketAddr {
        SocketAddr::new(self.destination.address, self.target_port)
    }
}

// The IPv4 router of the documentation, `docs/examples/egress-router.yaml`.

/// The router on `eth0`, by IPv4.
pub const ROUTER_ETH0: Prefix = V4.router_eth0;
/// The reserved IPv4 address.
pub const ROUTER_NET1: Prefix = V4.router_net1;
/// The server of [`TLS`].
pub const TLS_SERVER: Prefix = V4.tls_server;
/// [`Network::http`] by IPv4.
pub const HTTP: Rule = V4.http();
/// [`Network::tls`] by IPv4.
pub const TLS: Rule = V4.tls();
/// [`Network::datagram`] by IPv4.
pub const DATAGRAM: Rule = V4.datagram();
/// The example's rules, in its order.
pub const RULES: [Rule; 3] = [DATAGRAM, HTTP, TLS];

/// The IPv4 address of the client with this index, from 0.
///
/// # Panics
/// If `index` is not below [`MAX_CLIENTS`].
pub const fn client(index: u8) -> Prefix {
    V4.client(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_contains_its_network_only() {
        let contains = |network: Prefix, address: &str| network.contains(address.parse().unwrap());
        assert!(contains(V4.cluster, "10.131.255.255"));
        assert!(!contains(V4.cluster, "10.132.0.0"));
        assert!(!contains(V4.cluster, "::ffff:10.128.0.2"));
        assert!(contains(V6.cluster, "fd00:10:128:ffff::1"));
        assert!(!contains(V6.cluster, "fd00:10:129::1"));
        assert!(!contains(V6.http_server, "2001:db8:113::27"));
    }

    #[test]
    fn the_cluster_has_every_client_and_the_router_but_nothing_from_outside() {
        for network in NETWORKS {
            for index in 0..MAX_CLIENTS {
                let client = network.client(index);
                assert!(network.cluster.contains(client.address), "{client}");
                assert_ne!(client, network.router_eth0);
            }
            assert!(network.cluster.contains(network.router_eth0.address));
            for outside in network.servers() {
                assert!(!network.cluster.contains(outside.address), "{outside}");
            }
            assert!(!network.cluster.contains(network.router_net1.address));
        }
    }
}
