//! The pod's own sockets, to which the fallback leaves packets: decision 12.

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

/// A socket that waits for packets of anybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Where it is bound.
    pub address: SocketAddr,
    /// Whether it is of IPv6, and asked about by IPv4, which it takes as well unless it is for IPv6 only: that is not
    /// told.
    pub is_in_doubt: bool,
}

/// The socket of this network namespace that waits for a new client's packet on `port` of one of the addresses `own`,
/// which are of one family.
pub fn find(
    protocol: FlowProtocol,
    own: &BTreeSet<IpAddr>,
    port: u16,
) -> anyhow::Result<Option<Waiting>> {
    let bound = bound(protocol)?;
    Ok(waiting(&bound, own, port))
}

/// Where sockets are bound that are not connected.
fn bound(protocol: FlowProtocol) -> ProcResult<Vec<SocketAddr>> {
    let mut bound = Vec::new();
    match protocol {
        FlowProtocol::Transport(Protocol::Tcp) => {
            for table in [tcp(), tcp6()] {
                let listening = there(table)?
                    .into_iter()
                    .filter(|entry| entry.state == TcpState::Listen);
                bound.extend(listening.map(|entry| entry.local_address));
            }
        }
        FlowProtocol::Transport(Protocol::Udp) => {
            for table in [udp(), udp6()] {
                let unconnected = there(table)?
                    .into_iter()
                    .filter(|entry| entry.state != UdpState::Established);
                bound.extend(unconnected.map(|entry| entry.local_address));
            }
        }
        // The kernel half cannot ask for these.
        FlowProtocol::Transport(Protocol::Sctp) | FlowProtocol::Echo(_) => {}
    }
    Ok(bound)
}

/// A table's entries; none where the kernel has no such table, as without IPv6.
fn there<T>(table: ProcResult<Vec<T>>) -> ProcResult<Vec<T>> {
    match table {
        Err(ProcError::NotFound(_)) => Ok(Vec::new()),
        Err(ProcError::Io(error, _)) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        table => table,
    }
}

fn waiting(bound: &[SocketAddr], own: &BTreeSet<IpAddr>, port: u16) -> Option<Waiting> {
    let is_v4 = own.iter().any(IpAddr::is_ipv4);
    let on_port = bound.iter().filter(|address| address.port() == port);
    let is_sure = |address: &&SocketAddr| {
        own.contains(&address.ip()) || (address.ip().is_unspecified() && address.is_ipv4() == is_v4)
    };
    let may_be =
        |address: &&SocketAddr| is_v4 && address.is_ipv6() && address.ip().is_unspecified();
    let found = |is_in_doubt| {
        move |address: &SocketAddr| Waiting {
            address: *address,
            is_in_doubt,
        }
    };
    on_port
        .clone()
        .find(is_sure)
        .map(found(false))
        .or_else(|| on_port.clone().find(may_be).map(found(true)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_waits_on_the_routers_addresses_and_on_all_of_its_family() {
        let found = |bound: &str, own: &str| {
            let own = BTreeSet::from([own.parse().unwrap()]);
            waiting(&[bound.parse().unwrap()], &own, 80).map(|waiting| waiting.is_in_doubt)
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
