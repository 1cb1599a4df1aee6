//! The pod's own sockets, whose packets the fallback does not redirect: decision 12.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
};

use procfs::{
    ProcError, ProcResult,
    net::{TcpState, UdpState, tcp, tcp6, udp, udp6},
};

use egress_api::Protocol;

use super::super::protocol::FlowProtocol;

/// A socket that receives packets from any client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSocket {
    /// The address that it is bound to.
    pub address: SocketAddr,
    /// Whether it is bound to `[::]` and the client uses IPv4. Such a socket receives IPv4 packets unless it has
    /// `IPV6_V6ONLY`, which procfs does not show.
    pub may_be_ipv6_only: bool,
}

/// The socket in this network namespace that receives a new client's packet to `port` of one of the addresses `own`,
/// which are of one family.
pub fn find(
    protocol: FlowProtocol,
    own: &BTreeSet<IpAddr>,
    port: u16,
) -> anyhow::Result<Option<OpenSocket>> {
    let bound = bound(protocol)?;
    Ok(receiver(&bound, own, port))
}

/// The addresses that unconnected sockets are bound to.
fn bound(protocol: FlowProtocol) -> ProcResult<Vec<SocketAddr>> {
    let mut bound = Vec::new();
    match protocol {
        FlowProtocol::Transport(Protocol::Tcp) => {
            for table in [tcp(), tcp6()] {
                let listening = entries(table)?
                    .into_iter()
                    .filter(|entry| entry.state == TcpState::Listen);
                bound.extend(listening.map(|entry| entry.local_address));
            }
        }
        FlowProtocol::Transport(Protocol::Udp) => {
            for table in [udp(), udp6()] {
                let unconnected = entries(table)?
                    .into_iter()
                    .filter(|entry| entry.state != UdpState::Established);
                bound.extend(unconnected.map(|entry| entry.local_address));
            }
        }
        // The kernel half cannot look up these sockets.
        FlowProtocol::Transport(Protocol::Sctp) | FlowProtocol::Echo(_) => {}
    }
    Ok(bound)
}

/// A table's entries; none if the kernel has no such table, as without IPv6.
fn entries<T>(table: ProcResult<Vec<T>>) -> ProcResult<Vec<T>> {
    match table {
        Err(ProcError::NotFound(_)) => Ok(Vec::new()),
        Err(ProcError::Io(error, _)) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        table => table,
    }
}

fn receiver(bound: &[SocketAddr], own: &BTreeSet<IpAddr>, port: u16) -> Option<OpenSocket> {
    let is_v4 = own.iter().any(IpAddr::is_ipv4);
    let on_port = bound.iter().filter(|address| address.port() == port);
    let receives = |address: &&SocketAddr| {
        own.contains(&address.ip()) || (address.ip().is_unspecified() && address.is_ipv4() == is_v4)
    };
    let may_receive =
        |address: &&SocketAddr| is_v4 && address.is_ipv6() && address.ip().is_unspecified();
    let found = |may_be_ipv6_only| {
        move |address: &SocketAddr| OpenSocket {
            address: *address,
            may_be_ipv6_only,
        }
    };
    on_port
        .clone()
        .find(receives)
        .map(found(false))
        .or_else(|| on_port.clone().find(may_receive).map(found(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_receives_at_its_address_or_at_all_of_its_family() {
        let found = |bound: &str, own: &str| {
            let own = BTreeSet::from([own.parse().unwrap()]);
            receiver(&[bound.parse().unwrap()], &own, 80).map(|socket| socket.may_be_ipv6_only)
        };
        for (bound, own, expected) in [
            ("0.0.0.0:80", "10.0.0.1", Some(false)),
            ("10.0.0.1:80", "10.0.0.1", Some(false)),
            ("[::]:80", "10.0.0.1", Some(true)),
            ("[::]:80", "fd00::1", Some(false)),
            ("0.0.0.0:80", "fd00::1", None),
            ("127.0.0.1:80", "10.0.0.1", None),
            ("0.0.0.0:81", "10.0.0.1", None),
        ] {
            assert_eq!(found(bound, own), expected, "{bound} for {own}");
        }
    }
}
