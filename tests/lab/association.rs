//! SCTP associations through the kernel's own sockets (sctp(7)). Every wait is bounded by [`PATIENCE`].

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use socket2::{Domain, Protocol, Socket, Type};

use crate::PATIENCE;
use crate::namespace::Namespace;
use crate::socket::set_default_stream;

const BACKLOG: i32 = 8;

/// Why this kernel has no SCTP sockets; `None` if it has them.
pub fn missing() -> Option<&'static str> {
    static MISSING: OnceLock<Option<String>> = OnceLock::new();
    MISSING
        .get_or_init(|| {
            let opened = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::SCTP));
            let error = opened.err()?;
            Some(format!("the kernel has no SCTP sockets: {error}"))
        })
        .as_deref()
}

/// Listens for associations on `address` in `namespace`.
pub fn listen(namespace: &Namespace, address: SocketAddr) -> Result<Listener> {
    let socket = namespace
        .run(|| {
            let socket = open(address)?;
            socket.listen(BACKLOG)?;
            Ok(socket)
        })
        .with_context(|| format!("listening on {address}/sctp in the {}", namespace.role()))?;
    Ok(Listener(socket))
}

/// A listening SCTP socket.
#[derive(Debug)]
pub struct Listener(Socket);

impl Listener {
    /// Accepts the next association. Returns it with its peer's address.
    pub fn accept(&self) -> Result<(Association, SocketAddr)> {
        let (socket, peer) = self.0.accept().context("waiting for an association")?;
        bound_waits(&socket)?;
        let peer = peer.as_socket().context("the peer has no IP address")?;
        Ok((Association(socket), peer))
    }
}

/// Opens an association from `source` in `namespace`.
///
/// The socket is bound to one address. An endpoint with several addresses announces all of them (RFC 9260, section
/// 5.1.2), and its peer would use them past any translation.
///
/// # Errors
/// The cause is an [`io::Error`].
pub fn connect(namespace: &Namespace, source: SocketAddr, to: SocketAddr) -> Result<Association> {
    let socket = namespace
        .run(|| {
            let socket = open(source)?;
            socket.connect(&to.into())?;
            Ok(socket)
        })
        .with_context(|| format!("connecting to {to}/sctp from the {}", namespace.role()))?;
    Ok(Association(socket))
}

fn open(address: SocketAddr) -> Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::SCTP),
    )?;
    bound_waits(&socket)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

fn bound_waits(socket: &Socket) -> io::Result<()> {
    socket.set_read_timeout(Some(PATIENCE))?;
    // The timeout applies to connect(2), too.
    socket.set_write_timeout(Some(PATIENCE))
}

/// An end of an association.
#[derive(Debug)]
pub struct Association(Socket);

impl Association {
    /// Sends a message on a stream and checks that `peer` receives it whole.
    pub fn send(&mut self, peer: &mut Self, stream: u16, message: &[u8]) -> Result<()> {
        set_default_stream(&self.0, stream)?;
        self.0.write_all(message).context("sending a message")?;
        let mut received = vec![0; message.len() + 1];
        let mut len = 0;
        while len < message.len() {
            match peer
                .0
                .read(&mut received[len..])
                .context("waiting for a message")?
            {
                0 => break,
                part => len += part,
            }
        }
        ensure!(
            received[..len] == *message,
            "a message of {} bytes arrived as {len} different bytes",
            message.len()
        );
        Ok(())
    }

    /// Shuts the association down and checks that `peer` notices.
    pub fn shut_down(self, peer: &mut Self) -> Result<()> {
        self.0.shutdown(Shutdown::Write).context("shutting down")?;
        let len = peer.0.read(&mut [0]).context("waiting for the end")?;
        ensure!(
            len == 0,
            "expected the end of the association, received data"
        );
        Ok(())
    }

    /// Aborts the association and checks that `peer` notices.
    pub fn abort(self, peer: &mut Self) -> Result<()> {
        self.0.set_linger(Some(Duration::ZERO))?;
        drop(self);
        match peer.0.read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
            other => Err(anyhow::anyhow!("expected an abort, got {other:?}")),
        }
    }
}

/// How many SCTP packets with a wrong checksum a host has received.
pub fn checksum_errors(namespace: &Namespace) -> Result<u64> {
    let path = "/proc/thread-self/net/sctp/snmp";
    let text =
        namespace.run(|| fs::read_to_string(path).with_context(|| format!("reading {path}")))?;
    checksum_errors_in(&text)
        .with_context(|| format!("{path} has no counter of checksum errors:\n{text}"))
}

fn checksum_errors_in(text: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("SctpChecksumErrors"))?;
    line.trim().parse().ok()
}

/// Skips the calling test if the kernel has no SCTP sockets.
#[macro_export]
macro_rules! skip_unless_sctp_works {
    () => {
        if let Some(reason) = $crate::association::missing() {
            $crate::requirements::skipped($crate::function_name!(), reason);
            return Ok(());
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_the_kernels_table() {
        let text = "SctpCurrEstab                   \t1\nSctpChecksumErrors              \t3\n";
        assert_eq!(checksum_errors_in(text), Some(3));
        assert_eq!(checksum_errors_in("SctpCurrEstab\t1\n"), None);
    }
}
