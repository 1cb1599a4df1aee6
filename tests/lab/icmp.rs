//! ICMP messages of both families (RFC 792, RFC 4443): echo, and errors.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result};
use etherparse::checksum::Sum16BitWords;
use etherparse::{LaxSlicedPacket, PacketBuilder};

use crate::frame::{IpLayer, Packet};
use crate::namespace::Namespace;
use crate::raw::RawSocket;

/// The protocol number of the control messages of this address's family.
pub const fn protocol(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 1,
        IpAddr::V6(_) => 58,
    }
}

/// A message's type and code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for an answer.
    EchoRequest,
    /// The answer.
    EchoReply,
    /// Nobody has the port of the packet that caused this.
    PortUnreachable,
    /// The packet that caused this is larger than the way out allows, and may not
    /// be fragmented.
    PacketTooBig,
    /// The packet that caused this went over as many hops as it may.
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

    /// A message to or from an address of `family`. Its checksum is left to the
    /// kernel for IPv6, where it covers the addresses.
    fn message(self, family: IpAddr, rest: [u8; 4], body: &[u8]) -> Vec<u8> {
        let mut message = [&self.type_and_code(family), &[0; 2][..], &rest, body].concat();
        if family.is_ipv4() {
            let sum = Sum16BitWords::new().add_slice(&message);
            // The sum is of words as they lie in memory.
            message[2..4].copy_from_slice(&sum.ones_complement().to_ne_bytes());
        }
        message
    }
}

/// Whether the checksum of an ICMP message is right.
pub fn is_intact(packet: &Packet) -> bool {
    let sum = Sum16BitWords::new().add_slice(&packet.payload);
    let sum = match (packet.source, packet.destination) {
        // With the pseudo header (RFC 8200, section 8.1).
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

/// Whether a packet is one of neighbour discovery (RFC 4861), which is to IPv6 what
/// ARP is to IPv4.
pub fn is_neighbour_discovery(packet: &Packet) -> bool {
    packet.source.is_ipv6()
        && packet.protocol == protocol(packet.source)
        && matches!(packet.payload.first(), Some(133..=137))
}

/// Sends an echo request from `namespace` and waits up to `timeout` for the
/// reply to it from `to`.
///
/// # Errors
/// The cause is an [`std::io::Error`] of kind `TimedOut` without a reply.
pub fn ping(namespace: &Namespace, to: IpAddr, timeout: Duration) -> Result<()> {
    // The first reply ends it, so that one identifier is enough.
    ping_as(namespace, to, 1, timeout)
}

/// The same as [`ping`], with a chosen identifier.
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

/// An ICMP error: what it tells, and about which packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpError {
    /// What it tells.
    pub kind: Kind,
    /// Where the packet came from that caused it.
    pub source: SocketAddr,
    /// Where that packet went.
    pub destination: SocketAddr,
}

impl IcmpError {
    /// The error in a captured packet, if it is one.
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
        // All that an error needs to quote of the transport header (RFC 792).
        let (&[s0, s1, d0, d1], _) = quoted.payload.split_first_chunk()?;
        let port = u16::from_be_bytes;
        Some(Self {
            kind,
            source: SocketAddr::new(quoted.source, port([s0, s1])),
            destination: SocketAddr::new(quoted.destination, port([d0, d1])),
        })
    }

    /// Sends this error about a UDP datagram from `namespace` to the address that
    /// the datagram is said to come from.
    pub fn send(&self, namespace: &Namespace) -> Result<()> {
        let (source, destination) = (self.source, self.destination);
        let ip = match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                PacketBuilder::ipv4(source.octets(), destination.octets(), 60)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                PacketBuilder::ipv6(source.octets(), destination.octets(), 60)
            }
            _ => anyhow::bail!("no datagram goes from {source} to {destination}"),
        };
        let mut quoted = Vec::new();
        ip.udp(source.port(), destination.port())
            .write(&mut quoted, b"question")?;
        let message = self.kind.message(source.ip(), [0; 4], &quoted);
        RawSocket::connect(namespace, protocol(source.ip()), source.ip())?.send(&message)
    }
}
