//! The one table of the lab's addresses, and the rules of the example spec.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// The address, host bits included.
    pub address: IpAddr,
    /// The number of network bits.
    pub length: u8,
}

impl Prefix {
    const fn v4(octets: [u8; 4], length: u8) -> Self {
        let [a, b, c, d] = octets;
        Self {
            address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)),
            length,
        }
    }

    /// Whether `address` is of the same family and network.
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

/// What the cluster's pods and nodes have addresses of.
pub const CLUSTER: Prefix = Prefix::v4([10, 128, 0, 0], 14);
/// The router on `eth0`: where clients connect to.
pub const ROUTER_ETH0: Prefix = Prefix::v4([10, 128, 0, 100], 24);
/// The router on `net1`: the reserved source address.
pub const ROUTER_NET1: Prefix = Prefix::v4([192, 168, 12, 99], 24);
/// The gateway on the external network.
pub const GATEWAY: Prefix = Prefix::v4([192, 168, 12, 1], 24);
/// A host beside the router on the external network.
pub const NEIGHBOUR: Prefix = Prefix::v4([192, 168, 12, 50], 24);
/// The gateway's end of the link to the servers.
pub const GATEWAY_UPLINK: Prefix = Prefix::v4([198, 51, 100, 1], 30);
/// The servers' end of the link to the gateway.
pub const SERVERS_UPLINK: Prefix = Prefix::v4([198, 51, 100, 2], 30);
/// The server of [`HTTP`].
pub const HTTP_SERVER: Prefix = Prefix::v4([203, 0, 113, 26], 32);
/// The server of [`TLS`].
pub const TLS_SERVER: Prefix = Prefix::v4([203, 0, 113, 27], 32);
/// The server of [`DATAGRAM`].
pub const DATAGRAM_SERVER: Prefix = Prefix::v4([10, 0, 0, 99], 32);
/// Every address that the servers own.
pub const SERVERS: [Prefix; 3] = [HTTP_SERVER, TLS_SERVER, DATAGRAM_SERVER];

/// How many clients the cluster's subnet has room for below the router.
pub const MAX_CLIENTS: u8 = 98;

/// The address of the client with this index, from 0.
///
/// # Panics
/// If `index` is not below [`MAX_CLIENTS`].
pub const fn client(index: u8) -> Prefix {
    assert!(index < MAX_CLIENTS, "the lab has addresses for 98 clients");
    Prefix::v4([10, 128, 0, 2 + index], 24)
}

/// A transport protocol that rules can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The name as `ip` and `nft` write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A redirect rule of the example spec.
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
    /// Where a client connects to.
    pub const fn service(&self) -> SocketAddr {
        SocketAddr::new(ROUTER_ETH0.address, self.port)
    }

    /// Where the server listens.
    pub const fn server(&self) -> SocketAddr {
        SocketAddr::new(self.destination.address, self.target_port)
    }
}

/// 8080/TCP to port 80 of another server.
pub const HTTP: Rule = Rule {
    protocol: Protocol::Tcp,
    port: 8080,
    destination: HTTP_SERVER,
    target_port: 80,
};
/// 8443/TCP to port 443 of another server.
pub const TLS: Rule = Rule {
    protocol: Protocol::Tcp,
    port: 8443,
    destination: TLS_SERVER,
    target_port: 443,
};
/// 80/UDP to the same port.
pub const DATAGRAM: Rule = Rule {
    protocol: Protocol::Udp,
    port: 80,
    destination: DATAGRAM_SERVER,
    target_port: 80,
};
/// The rules of `docs/examples/egress-router.yaml`, in its order.
pub const RULES: [Rule; 3] = [DATAGRAM, HTTP, TLS];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_contains_its_network_only() {
        assert!(CLUSTER.contains(client(0).address));
        assert!(CLUSTER.contains("10.131.255.255".parse().unwrap()));
        assert!(!CLUSTER.contains("10.132.0.0".parse().unwrap()));
        assert!(!CLUSTER.contains("::ffff:10.128.0.2".parse().unwrap()));
        assert!(HTTP_SERVER.contains(HTTP_SERVER.address));
        assert!(!HTTP_SERVER.contains(TLS_SERVER.address));
    }
}
