//! The router's two interfaces, their addresses and routes, and notifications of changes.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use egress_api::Family;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use ipnet::IpNet;
use rtnetlink::{
    Handle, MulticastGroup, RouteMessageBuilder,
    packet_core::NetlinkPayload,
    packet_route::{
        RouteNetlinkMessage,
        address::AddressAttribute,
        link::{LinkAttribute, LinkFlags},
        route::{RouteAddress, RouteAttribute},
    },
};
use thiserror::Error;

/// Why an interface cannot be used.
#[derive(Debug, Error)]
pub enum InterfaceError {
    /// There is no interface of this name.
    #[error(
        "there is no interface {name} in this network namespace (there are: {present}); {hint}"
    )]
    Missing {
        /// The requested name.
        name: String,
        /// The names of all interfaces.
        present: String,
        /// What the user can do.
        hint: &'static str,
    },
    /// The interface is down.
    #[error("interface {name} is down; set it up with `ip link set {name} up`")]
    Down {
        /// The interface.
        name: String,
    },
    /// One interface has both roles.
    #[error("{name} cannot be both the cluster and the egress interface")]
    Same {
        /// The interface.
        name: String,
    },
    /// The reserved address is not on the egress interface.
    #[error(
        "the reserved address {} of the spec is not on {interface} (it has: {present}); \
         add it with `ip address add {reserved} dev {interface}`, or fix spec.addresses",
        .reserved.addr()
    )]
    NoReservedAddress {
        /// The reserved address, with its prefix length in the spec.
        reserved: IpNet,
        /// The egress interface.
        interface: String,
        /// The addresses that it has.
        present: String,
    },
    /// The cluster interface has no address of a family that clients could connect to.
    #[error("{interface} has no {family} address that clients could connect to")]
    NoClusterAddress {
        /// The cluster interface.
        interface: String,
        /// The family.
        family: Family,
    },
    /// A netlink request failed.
    #[error("could not query the kernel about interfaces: {0}")]
    Netlink(#[from] rtnetlink::Error),
    /// The netlink socket could not be opened.
    #[error("could not open a netlink socket: {0}")]
    Socket(#[from] std::io::Error),
}

/// An Ethernet address.
pub type MacAddress = [u8; 6];

/// A part of the network configuration that may have changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkChange {
    /// An interface or its addresses, and possibly everything else.
    Interfaces,
    /// A route.
    Routes,
    /// A neighbour.
    Neighbours,
}

/// An interface and its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The name.
    pub name: String,
    /// The index in this network namespace.
    pub index: u32,
    /// Whether it is administratively up.
    pub is_up: bool,
    /// The largest IP packet in bytes.
    pub mtu: u32,
    /// The interface's own addresses.
    pub addresses: BTreeSet<IpAddr>,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, list(&self.addresses))
    }
}

fn mtu(attributes: &[LinkAttribute]) -> u32 {
    let mtu = |attribute: &LinkAttribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    };
    attributes.iter().find_map(mtu).unwrap_or(0)
}

/// The items separated by commas, or "none".
fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<_> = items.into_iter().map(|item| item.to_string()).collect();
    if items.is_empty() {
        "none".to_owned()
    } else {
        items.join(", ")
    }
}

/// A netlink connection for the interfaces, routes and neighbours of the process's network namespace.
#[derive(Clone, Debug)]
pub struct Interfaces {
    pub(super) handle: Handle,
}

impl Interfaces {
    /// Connects. The caller must be in a tokio runtime, which serves the connection.
    ///
    /// # Errors
    ///
    /// If the socket cannot be opened.
    pub fn connect() -> Result<Self, InterfaceError> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        tokio::spawn(connection);
        Ok(Self { handle })
    }

    /// Finds the interface `name`. The error for a missing interface contains `hint`.
    ///
    /// # Errors
    ///
    /// [`InterfaceError::Missing`], or [`InterfaceError::Netlink`].
    pub async fn find(&self, name: &str, hint: &'static str) -> Result<Interface, InterfaceError> {
        let mut present = Vec::new();
        let mut links = self.handle.link().get().execute();
        while let Some(link) = links.try_next().await? {
            let link_name = link
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::IfName(name) => Some(name.as_str()),
                    _ => None,
                });
            match link_name {
                Some(link_name) if link_name == name => {
                    return Ok(Interface {
                        name: name.to_owned(),
                        index: link.header.index,
                        is_up: link.header.flags.contains(LinkFlags::Up),
                        mtu: mtu(&link.attributes),
                        addresses: self.addresses(link.header.index).await?,
                    });
                }
                Some(link_name) => present.push(link_name.to_owned()),
                None => {}
            }
        }
        Err(InterfaceError::Missing {
            name: name.to_owned(),
            present: list(present),
            hint,
        })
    }

    /// The current MTU of the interface with this index; 0 if it has none.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer, or the interface is gone.
    pub async fn mtu(&self, index: u32) -> Result<u32, InterfaceError> {
        let mut links = self.handle.link().get().match_index(index).execute();
        Ok(links
            .try_next()
            .await?
            .map_or(0, |link| mtu(&link.attributes)))
    }

    /// The current addresses of the interface with this index.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub async fn addresses(&self, index: u32) -> Result<BTreeSet<IpAddr>, InterfaceError> {
        let mut found = BTreeSet::new();
        let mut messages = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute();
        while let Some(message) = messages.try_next().await? {
            // On an IPv4 point-to-point link `Address` is the peer's and `Local` is ours. Elsewhere they are equal.
            let own = |attribute: &AddressAttribute| match attribute {
                AddressAttribute::Local(address) => Some(*address),
                _ => None,
            };
            let any = |attribute: &AddressAttribute| match attribute {
                AddressAttribute::Address(address) => Some(*address),
                _ => None,
            };
            let attributes = &message.attributes;
            found.extend(
                attributes
                    .iter()
                    .find_map(own)
                    .or_else(|| attributes.iter().find_map(any)),
            );
        }
        Ok(found)
    }

    /// The MAC address of the interface with this index; `None` if it has none.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer, or the interface is gone.
    pub async fn mac(&self, index: u32) -> Result<Option<MacAddress>, InterfaceError> {
        let mut links = self.handle.link().get().match_index(index).execute();
        let attributes = links.try_next().await?.map(|link| link.attributes);
        Ok(attributes
            .into_iter()
            .flatten()
            .find_map(|attribute| match attribute {
                LinkAttribute::Address(octets) => octets.try_into().ok(),
                _ => None,
            }))
    }

    /// The next hop towards `destination` on the interface with this index: the gateway, or the destination itself.
    /// `None` if there is no route.
    ///
    /// # Errors
    ///
    /// If the kernel does not answer.
    pub async fn next_hop(
        &self,
        index: u32,
        destination: IpAddr,
    ) -> Result<Option<IpAddr>, InterfaceError> {
        let width = if destination.is_ipv4() { 32 } else { 128 };
        let message = RouteMessageBuilder::<IpAddr>::new()
            .destination_prefix(destination, width)
            .expect("the prefix is as long as the address")
            .output_interface(index)
            .build();
        let mut routes = std::pin::pin!(self.handle.route().get(message).execute());
        let Some(route) = routes.try_next().await? else {
            return Ok(None);
        };
        let mut gateway = None;
        for attribute in route.attributes {
            match attribute {
                RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                    gateway = Some(address.into());
                }
                RouteAttribute::Gateway(RouteAddress::Inet6(address)) => {
                    gateway = Some(address.into());
                }
                // IPv4 through an IPv6 neighbour (RFC 5549), which is left to the kernel.
                RouteAttribute::Via(_) => return Ok(None),
                // The route leads through another interface.
                RouteAttribute::Oif(other) if other != index => return Ok(None),
                _ => {}
            }
        }
        Ok(Some(gateway.unwrap_or(destination)))
    }

    /// A stream of changes.
    ///
    /// # Errors
    ///
    /// If the socket cannot be opened.
    pub fn changes() -> Result<impl Stream<Item = NetworkChange> + Unpin, InterfaceError> {
        let (connection, _, messages) = rtnetlink::new_multicast_connection(&[
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
            MulticastGroup::Neigh,
        ])?;
        tokio::spawn(connection);
        Ok(Box::pin(messages.filter_map(|(message, _)| {
            std::future::ready(match message.payload {
                NetlinkPayload::InnerMessage(
                    RouteNetlinkMessage::NewLink(_)
                    | RouteNetlinkMessage::NewAddress(_)
                    | RouteNetlinkMessage::DelAddress(_),
                ) => Some(NetworkChange::Interfaces),
                NetlinkPayload::InnerMessage(
                    RouteNetlinkMessage::NewRoute(_) | RouteNetlinkMessage::DelRoute(_),
                ) => Some(NetworkChange::Routes),
                NetlinkPayload::InnerMessage(
                    RouteNetlinkMessage::NewNeighbour(_) | RouteNetlinkMessage::DelNeighbour(_),
                ) => Some(NetworkChange::Neighbours),
                // Messages were lost, and may have reported any change.
                NetlinkPayload::Overrun(_) => Some(NetworkChange::Interfaces),
                _ => None,
            })
        })))
    }

    /// Whether an interface's clsact qdisc has any filter, on either hook.
    ///
    /// # Errors
    ///
    /// If the kernel refuses, as it does if the interface has no clsact qdisc.
    pub async fn has_clsact_filters(&self, index: u32) -> Result<bool, InterfaceError> {
        let index = i32::try_from(index).expect("the kernel's interface indexes are positive i32");
        let filters = || self.handle.traffic_filter(index).get();
        let mut ingress = std::pin::pin!(filters().ingress().execute());
        if ingress.try_next().await?.is_some() {
            return Ok(true);
        }
        let mut egress = std::pin::pin!(filters().egress().execute());
        if egress.try_next().await?.is_some() {
            return Ok(true);
        }
        Ok(false)
    }

    /// Deletes the clsact qdisc of an interface.
    ///
    /// # Errors
    ///
    /// If the kernel refuses.
    pub async fn delete_clsact(&self, index: u32) -> Result<(), InterfaceError> {
        use rtnetlink::packet_route::tc::TcHandle;

        let index = i32::try_from(index).expect("the kernel's interface indexes are positive i32");
        let mut request = self.handle.qdisc().del(index);
        // As `tc qdisc del dev … clsact` does: the parent is TC_H_CLSACT (linux/pkt_sched.h).
        request.message_mut().header.parent = TcHandle {
            major: 0xffff,
            minor: 0xfff1,
        };
        request.message_mut().header.handle = TcHandle {
            major: 0xffff,
            minor: 0,
        };
        Ok(request.execute().await?)
    }
}

/// Checks that a router with these reserved addresses can use the two interfaces.
///
/// # Errors
///
/// The first check that fails.
pub fn check(
    cluster: &Interface,
    egress: &Interface,
    reserved: impl IntoIterator<Item = IpNet>,
) -> Result<(), InterfaceError> {
    if cluster.index == egress.index {
        return Err(InterfaceError::Same {
            name: cluster.name.clone(),
        });
    }
    for interface in [cluster, egress] {
        if !interface.is_up {
            return Err(InterfaceError::Down {
                name: interface.name.clone(),
            });
        }
    }
    for reserved in reserved {
        let address = reserved.addr();
        let family = Family::of(address);
        let is_usable = |own: &IpAddr| Family::of(*own) == family && !is_link_local(own);
        if !cluster.addresses.iter().any(is_usable) {
            return Err(InterfaceError::NoClusterAddress {
                interface: cluster.name.clone(),
                family,
            });
        }
        if !egress.addresses.contains(&address) {
            return Err(InterfaceError::NoReservedAddress {
                reserved,
                interface: egress.name.clone(),
                present: list(&egress.addresses),
            });
        }
    }
    Ok(())
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(name: &str, index: u32, addresses: &[&str]) -> Interface {
        let addresses = addresses
            .iter()
            .map(|address| address.parse().unwrap())
            .collect();
        Interface {
            name: name.to_owned(),
            index,
            is_up: true,
            mtu: 1500,
            addresses,
        }
    }

    #[test]
    fn each_failed_check_has_its_own_error() {
        let eth0 = interface("eth0", 2, &["10.128.0.100"]);
        let net1 = interface("net1", 3, &["192.168.12.99", "fe80::1"]);
        let reserved = ["192.168.12.99/24".parse().unwrap()];
        assert!(check(&eth0, &net1, reserved).is_ok());

        let other = ["192.168.12.98/24".parse().unwrap()];
        let down = Interface {
            is_up: false,
            ..net1.clone()
        };
        let cases = [
            (
                check(&eth0, &eth0, reserved),
                "both the cluster and the egress interface",
            ),
            (check(&eth0, &down, reserved), "ip link set net1 up"),
            (
                check(&eth0, &net1, other),
                "ip address add 192.168.12.98/24 dev net1",
            ),
            (
                check(&interface("eth0", 2, &[]), &net1, reserved),
                "eth0 has no IPv4 address",
            ),
        ];
        for (result, expected) in cases {
            let message = result.unwrap_err().to_string();
            assert!(
                message.contains(expected),
                "{message:?} does not say {expected:?}"
            );
        }
    }
}
