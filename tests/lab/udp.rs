//! UDP datagrams between namespaces. Every wait is bounded by [`PATIENCE`].

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, ensure};

use crate::PATIENCE;
use crate::namespace::Namespace;

const LARGEST_DATAGRAM: usize = 65_507;

/// Binds a socket in `namespace`.
pub fn bind(namespace: &Namespace, address: SocketAddr) -> Result<UdpSocket> {
    let place = || format!("binding {address}/udp in the {}", namespace.role());
    let socket = namespace
        .run(|| Ok(UdpSocket::bind(address)?))
        .with_context(place)?;
    socket
        .set_read_timeout(Some(PATIENCE))
        .with_context(place)?;
    socket
        .set_write_timeout(Some(PATIENCE))
        .with_context(place)?;
    Ok(socket)
}

/// A socket that exchanges datagrams with `to` only, and learns of its errors.
pub fn connect(namespace: &Namespace, to: SocketAddr) -> Result<UdpSocket> {
    connect_from(namespace, 0, to)
}

/// The same as [`connect`], from a chosen source port.
pub fn connect_from(namespace: &Namespace, port: u16, to: SocketAddr) -> Result<UdpSocket> {
    let socket = bind(
        namespace,
        SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port),
    )?;
    namespace
        .run(|| Ok(socket.connect(to)?))
        .with_context(|| format!("connecting to {to}/udp from the {}", namespace.role()))?;
    Ok(socket)
}

/// Receives the next datagram, and says from where it came.
pub fn receive(socket: &UdpSocket) -> Result<(Vec<u8>, SocketAddr)> {
    let mut datagram = vec![0; LARGEST_DATAGRAM];
    let (length, peer) = socket
        .recv_from(&mut datagram)
        .context("waiting for a datagram")?;
    datagram.truncate(length);
    Ok((datagram, peer))
}

/// Sends `question` to a server's socket, which answers it, and checks that both
/// arrive as sent. Returns the client's address as the server saw it.
pub fn exchange(
    client: &UdpSocket,
    server: &UdpSocket,
    question: &[u8],
    answer: &[u8],
) -> Result<SocketAddr> {
    client.send(question).context("sending the question")?;
    let (received, peer) = receive(server).context("at the server")?;
    ensure!(
        received == question,
        "the server received {received:02x?}, not {question:02x?}"
    );
    server.send_to(answer, peer).context("sending the answer")?;
    let (received, _) = receive(client).context("at the client")?;
    ensure!(
        received == answer,
        "the client received {received:02x?}, not {answer:02x?}"
    );
    Ok(peer)
}
