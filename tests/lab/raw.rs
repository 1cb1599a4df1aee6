//! Hand-made packets of any IP protocol (raw(7)).

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use etherparse::LaxIpv4Slice;
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;

const LARGEST_PACKET: usize = 65_535;

/// A socket that exchanges the payloads of IP packets with one host. The kernel writes the IP headers, and the checksum
/// of ICMPv6.
#[derive(Debug)]
pub struct RawSocket {
    socket: Socket,
    place: String,
    is_ipv4: bool,
}

impl RawSocket {
    /// Opens a socket in `namespace` for this IP protocol number, connected to `peer`.
    pub fn connect(namespace: &Namespace, protocol: u8, peer: IpAddr) -> Result<Self> {
        Self::open(namespace, protocol, None, peer)
    }

    /// Like [`RawSocket::connect`], bound to one of the host's addresses.
    pub fn connect_from(
        namespace: &Namespace,
        protocol: u8,
        local: IpAddr,
        peer: IpAddr,
    ) -> Result<Self> {
        Self::open(namespace, protocol, Some(local), peer)
    }

    fn open(
        namespace: &Namespace,
        protocol: u8,
        local: Option<IpAddr>,
        peer: IpAddr,
    ) -> Result<Self> {
        let place = format!("protocol {protocol}, {} to {peer}", namespace.role());
        let peer = SocketAddr::new(peer, 0);
        let socket = namespace
            .run(|| {
                let domain = Domain::for_address(peer);
                let socket =
                    Socket::new(domain, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
                if let Some(local) = local {
                    socket.bind(&SocketAddr::new(local, 0).into())?;
                }
                socket.connect(&peer.into())?;
                Ok(socket)
            })
            .with_context(|| format!("opening a raw socket ({place})"))?;
        Ok(Self {
            socket,
            place,
            is_ipv4: peer.is_ipv4(),
        })
    }

    /// Sends an IP packet with this payload.
    pub fn send(&self, payload: &[u8]) -> Result<()> {
        self.socket
            .send(payload)
            .with_context(|| format!("sending {} bytes ({})", payload.len(), self.place))?;
        Ok(())
    }

    /// Receives packets for up to `timeout`, until `wanted` returns `Some` for the payload of one.
    ///
    /// # Errors
    /// Without such a packet, the cause is an [`io::Error`] of kind `TimedOut`.
    pub fn receive<T>(&self, timeout: Duration, wanted: impl Fn(&[u8]) -> Option<T>) -> Result<T> {
        self.wait_for(Instant::now() + timeout, wanted)
            .with_context(|| format!("waiting for a packet ({})", self.place))
    }

    fn wait_for<T>(&self, deadline: Instant, wanted: impl Fn(&[u8]) -> Option<T>) -> io::Result<T> {
        let mut packet = vec![0; LARGEST_PACKET];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.socket.set_read_timeout(Some(left))?;
            let length = match (&self.socket).read(&mut packet) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error),
            };
            if let Some(found) = self.payload(&packet[..length]).and_then(&wanted) {
                return Ok(found);
            }
        }
    }

    /// Removes the IP header, which the kernel delivers with IPv4 packets only.
    fn payload<'p>(&self, packet: &'p [u8]) -> Option<&'p [u8]> {
        if self.is_ipv4 {
            let (packet, _) = LaxIpv4Slice::from_slice(packet).ok()?;
            Some(packet.payload().payload)
        } else {
            Some(packet)
        }
    }
}
