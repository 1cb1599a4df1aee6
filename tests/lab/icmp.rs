//! ICMP messages of both families (RFC 792, RFC 4443): echo, and errors.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use etherparse::checksum::Sum16BitWords;
use etherparse::{LaxSlicedPacket, PacketBuilder};

use crate::frame::{IpLayer, Packet};
use crate::namespace::Namespace;
use crate::raw::RawSocket;

/// The protocol number of ICMP for this address's family.
pub const fn protocol(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 1,
        IpAddr::V6(_) => 58,
    }
}

/// The kinds of messages that the tests use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An echo request.
    EchoRequest,
    /// An echo reply.
    EchoReply,
    /// No socket has the destination port.
    PortUnreachable,
    /// The packet is larger than the MTU of the way out and must not be fragmented.
    PacketTooBig,
    /// The packet's time to live, or hop limit, ran out.
    HopLimitExceeded,
}

impl Kind {
    const fn type_and_code(self, family: IpAddr) -> [u8; 2] {
        match (self, family) {
            (Self::EchoRequest, IpAddr::V4(_)) => [8, 0],
            (Self::EchoReply, IpAddr::V4(_)) => [0, 0],
            (Self::PortUnreachable, IpAddr::V4(_)) => [3, 3],
            (Self::PacketTooBig, IpAddr::V4(_)) => [3, 4],
            (Self::HopLimitExceeded, IpAddr::V4(_)) => [11, 0],
            (Self::EchoRequest, IpAddr::V6(_)) => [128, 0],
            (Self::EchoReply, IpAddr::V6(_)) => [129, 0],
            (Self::PortUnreachable, IpAddr::V6(_)) => [1, 4],
            (Self::PacketTooBig, IpAddr::V6(_)) => [2, 0],
            (Self::HopLimitExceeded, IpAddr::V6(_)) => [3, 0],
        }
    }

    /// A message to or from an address of `family`. The kernel fills in the checksum for IPv6, where it covers the
    /// addresses.
    fn message(self, family: IpAddr, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
        let mut message = [&self.type_and_code(family), &[0; 2][..], &rest, body].concat();
        if family.is_ipv4() {
            let sum = Sum16BitWords::new().add_slice(&message);
            // `Sum16BitWords` adds words as they lie in memory.
            message[2..4].copy_from_slice(&sum.ones_complement().to_ne_bytes());
        }
        message
    }
}

/// Whether the checksum of an ICMP message is right.
pub fn is_intact(packet: &Packet) -> bool {
    let sum = Sum16BitWords::new().add_slice(&packet.payload);
    let sum = match (packet.source, packet.destination) {
        // The IPv6 checksum includes a pseudo-header (RFC 8200, section 8.1).
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let Ok(length) = u32::try_from(packet.payload.len()) else {
                return false;
            };
            sum.add_slice(&source.octets())
                .add_slice(&destination.octets())
                .add_slice(&length.to_be_bytes())
                .add_slice(&[0, 0, 0, packet.protocol])
        }
        _ => sum,
    };
    sum.ones_complement() == 0
}

/// Whether a packet belongs to neighbour discovery (RFC 4861), IPv6's counterpart of ARP.
pub fn is_neighbour_discovery(packet: &Packet) -> bool {
    packet.source.is_ipv6()
        && packet.protocol == protocol(packet.source)
        && matches!(packet.payload.first(), Some(133..=137))
}

/// Sends an echo request from `namespace` and waits up to `timeout` for the reply from `to`.
///
/// # Errors
/// Without a reply, the cause is an [`std::io::Error`] of kind `TimedOut`.
pub fn ping(namespace: &Namespace, to: IpAddr, timeout: Duration) -> Result<()> {
    // Each ping ends with its first reply, so all can share one identifier.
    ping_as(namespace, to, 1, timeout)
}

/// Like [`ping`], with the given identifier.
pub fn ping_as(
    namespace: &Namespace,
    to: IpAddr,
    identifier: u16,
    timeout: Duration,
) -> Result<()> {
    const DATA: &[u8] = b"is anybody there?";
    const SEQUENCE: u8 = 1;
    let [high, low] = identifier.to_be_bytes();
    let rest = [high, low, 0, SEQUENCE];
    let request = Kind::EchoRequest.message(to, rest, DATA);
    let reply = Kind::EchoReply.message(to, rest, DATA);
    let without_checksum = |message: &[u8]| {
        let (start, rest) = message.split_at_checked(4)?;
        Some([&start[..2], rest].concat())
    };

    let socket = RawSocket::connect(namespace, protocol(to), to)?;
    socket.send(&request)?;
    socket
        .receive(timeout, |message| {
            (without_checksum(message) == without_checksum(&reply)).then_some(())
        })
        .with_context(|| format!("pinging {to} from the {}", namespace.role()))
}

/// An ICMP error, with the packet that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// The kind of error.
    pub kind: Kind,
    /// The source of the packet that caused the error.
    pub source: SocketAddr,
    /// The destination of that packet.
    pub destination: SocketAddr,
}

impl IcmpError {
    /// Parses the error in a captured packet, if it is one.
    pub fn of(packet: &Packet) -> Option<Self> {
        if packet.protocol != protocol(packet.source) {
            return None;
        }
        let (header, quoted) = packet.payload.split_first_chunk::<8>()?;
        let kind = [
            Kind::PortUnreachable,
            Kind::PacketTooBig,
            Kind::HopLimitExceeded,
        ]
        .into_iter()
        .find(|kind| header.starts_with(&kind.type_and_code(packet.source)))?;
        let quoted = LaxSlicedPacket::from_ip(quoted).ok()?;
        let quoted = IpLayer::of(quoted.net.as_ref()?)?;
        // The ports are all that an error must quote of the transport header that matters here (RFC 792).
        let (&[s0, s1, d0, d1], _) = quoted.payload.split_first_chunk()?;
        let port = u16::from_be_bytes;
        Some(Self {
            kind,
            source: SocketAddr::new(quoted.source, port([s0, s1])),
            destination: SocketAddr::new(quoted.destination, port([d0, d1])),
        })
    }

    /// Sends this error from `namespace`, about a UDP datagram, to the datagram's source address.
    pub fn send(&self, namespace: &Namespace) -> Result<()> {
        let (source, destination) = (self.source, self.destination);
        let ip = match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                PacketBuilder::ipv4(source.octets(), destination.octets(), 60)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                PacketBuilder::ipv6(source.octets(), destination.octets(), 60)
            }
            _ => anyhow::bail!("{source} and {destination} differ in address family"),
        };
        let mut quoted = Vec::new();
        ip.udp(source.port(), destination.port())
            .write(&mut quoted, b"question")?;
        let message = self.kind.message(source.ip(), [0; 4], &quoted);
        RawSocket::connect(namespace, protocol(source.ip()), source.ip())?.send(&message)
    }
}
