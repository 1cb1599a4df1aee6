//! UDP datagrams between namespaces. Every wait is bounded by [`PATIENCE`].

use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result, bail, ensure};
use etherparse::{PacketBuilder, checksum::Sum16BitWords};

use crate::PATIENCE;
use crate::addresses::{Protocol, unspecified};
use crate::namespace::Namespace;

const LARGEST_DATAGRAM: usize = 65_507;
const CHECKSUM: std::ops::Range<usize> = 6..8;

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

/// Binds a socket that exchanges datagrams with `to` only and reports ICMP errors about them.
pub fn connect(namespace: &Namespace, to: SocketAddr) -> Result<UdpSocket> {
    connect_from(namespace, 0, to)
}

/// Like [`connect`], from the given source port.
pub fn connect_from(namespace: &Namespace, port: u16, to: SocketAddr) -> Result<UdpSocket> {
    let socket = bind(namespace, SocketAddr::new(unspecified(to.ip()), port))?;
    namespace
        .run(|| Ok(socket.connect(to)?))
        .with_context(|| format!("connecting to {to}/udp from the {}", namespace.role()))?;
    Ok(socket)
}

/// A UDP datagram with its IP header.
pub fn packet(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Result<Vec<u8>> {
    const TTL: u8 = 64;
    let builder = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => PacketBuilder::ipv4(from.octets(), to.octets(), TTL),
        (IpAddr::V6(from), IpAddr::V6(to)) => PacketBuilder::ipv6(from.octets(), to.octets(), TTL),
        _ => bail!("{from} and {to} differ in address family"),
    }
    .udp(from.port(), to.port());
    let mut packet = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut packet, payload)?;
    Ok(packet)
}

/// Receives the next datagram. Returns it with its sender's address.
pub fn receive(socket: &UdpSocket) -> Result<(Vec<u8>, SocketAddr)> {
    let mut datagram = vec![0; LARGEST_DATAGRAM];
    let (length, peer) = socket
        .recv_from(&mut datagram)
        .context("waiting for a datagram")?;
    datagram.truncate(length);
    Ok((datagram, peer))
}

/// Sends `question` to the server's socket, answers it from there, and checks that both arrive unchanged. Returns the
/// client's address as the server saw it.
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

/// A datagram with its UDP header, for a raw socket.
///
/// # Panics
/// If `payload` does not fit into a datagram.
pub fn datagram(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(8 + payload.len())
        .expect("a payload that fits")
        .to_be_bytes();
    let mut datagram = [
        &source.port().to_be_bytes(),
        &destination.port().to_be_bytes(),
        &length,
        &[0, 0][..],
        payload,
    ]
    .concat();
    // The checksum includes a pseudo-header (RFC 768; RFC 8200, section 8.1).
    let sum = [source.ip(), destination.ip()]
        .iter()
        .fold(Sum16BitWords::new(), |sum, address| match address {
            IpAddr::V4(address) => sum.add_slice(&address.octets()),
            IpAddr::V6(address) => sum.add_slice(&address.octets()),
        })
        .add_slice(&[0, Protocol::Udp.number()])
        .add_slice(&length)
        .add_slice(&datagram);
    let checksum = match sum.ones_complement() {
        0 => u16::MAX,
        checksum => checksum,
    };
    // `Sum16BitWords` adds words as they lie in memory.
    datagram[CHECKSUM].copy_from_slice(&checksum.to_ne_bytes());
    datagram
}

/// A payload that makes the datagram's checksum come out as 0, which is sent as 0xffff.
pub fn payload_of_checksum_zero(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    // The checksum is the complement of the sum. As the payload, it makes the sum all ones.
    datagram(source, destination, &[0, 0])[CHECKSUM].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addresses::NETWORKS;

    #[test]
    fn a_checksum_that_comes_out_as_zero_is_written_as_all_ones() {
        for network in NETWORKS {
            let (source, destination) = (network.on_eth0(1), network.http().server());
            let payload = payload_of_checksum_zero(source, destination);
            let datagram = datagram(source, destination, &payload);
            assert_eq!(datagram[CHECKSUM], [0xff, 0xff]);
        }
    }
}
