//! ICMP echo (RFC 792).

use std::io::{self, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, Ipv4Slice};
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;

/// Sends an echo request from `namespace` and waits up to `timeout` for the
/// reply to it from `to`.
///
/// # Errors
/// Without a reply, or when `to` is no IPv4 address.
pub fn ping(namespace: &Namespace, to: IpAddr, timeout: Duration) -> Result<()> {
    if !to.is_ipv4() {
        bail!("pinging {to}: expected an IPv4 address");
    }
    namespace
        .run(|| {
            let mut socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
            socket.connect(&SocketAddr::new(to, 0).into())?;
            // The first reply ends it, so that one identifier is enough.
            let echo = IcmpEchoHeader { id: 1, seq: 1 };
            let request =
                Icmpv4Header::with_checksum(Icmpv4Type::EchoRequest(echo), &[]).to_bytes();
            socket.send(&request)?;

            let deadline = Instant::now() + timeout;
            let mut packet = [0; 1_500];
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Err(io::Error::from(io::ErrorKind::TimedOut).into());
                }
                socket.set_read_timeout(Some(left))?;
                let length = match socket.read(&mut packet) {
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                    Err(error) => return Err(error.into()),
                };
                let packet = Ipv4Slice::from_slice(&packet[..length])?;
                let message = Icmpv4Slice::from_slice(packet.payload().payload)?;
                if message.icmp_type() == Icmpv4Type::EchoReply(echo) {
                    return Ok(());
                }
            }
        })
        .with_context(|| format!("pinging {to} from the {}", namespace.role()))
}
