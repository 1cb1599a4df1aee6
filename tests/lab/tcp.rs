//! TCP connections between namespaces. Every wait is bounded by [`PATIENCE`].

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use etherparse::TcpHeader;
use socket2::{Domain, SockRef, Socket, Type};

use crate::PATIENCE;
use crate::namespace::Namespace;

/// A SYN segment with its TCP header, for a raw socket.
///
/// # Panics
/// If the addresses are of different families.
pub fn syn(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    const SEQUENCE_NUMBER: u32 = 0x0123_4567;
    const WINDOW: u16 = 64_240;
    let mut header = TcpHeader::new(source.port(), destination.port(), SEQUENCE_NUMBER, WINDOW);
    header.syn = true;
    let checksum = match (source.ip(), destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &[])
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), &[])
        }
        _ => panic!("{source} and {destination} differ in address family"),
    };
    header.checksum = checksum.expect("a segment without data fits into a packet");
    header.to_bytes().to_vec()
}

/// Listens on `address` in `namespace`.
pub fn listen(namespace: &Namespace, address: SocketAddr) -> Result<TcpListener> {
    let place = || format!("listening on {address}/tcp in the {}", namespace.role());
    let listener = namespace
        .run(|| Ok(TcpListener::bind(address)?))
        .with_context(place)?;
    // On Linux the timeout bounds accept(2), too.
    SockRef::from(&listener)
        .set_read_timeout(Some(PATIENCE))
        .with_context(place)?;
    Ok(listener)
}

/// Accepts the next connection. Returns it with its peer's address.
pub fn accept(listener: &TcpListener) -> Result<(TcpStream, SocketAddr)> {
    let (stream, peer) = listener
        .accept()
        .with_context(|| match listener.local_addr() {
            Ok(address) => format!("waiting for a connection to {address}/tcp"),
            Err(error) => format!("waiting for a connection: {error}"),
        })?;
    bound_waits(&stream)?;
    Ok((stream, peer))
}

/// Connects from `namespace`.
pub fn connect(namespace: &Namespace, to: SocketAddr) -> Result<TcpStream> {
    Connector::default().connect(namespace, to)
}

/// Connects with the given properties.
#[derive(Clone, Debug)]
pub struct Connector {
    source: SocketAddr,
    ip_options: Vec<u8>,
    hop_limit: Option<u8>,
    timeout: Duration,
}

impl Default for Connector {
    fn default() -> Self {
        let source = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
        Self {
            source,
            ip_options: Vec::new(),
            hop_limit: None,
            timeout: PATIENCE,
        }
    }
}

impl Connector {
    /// Connects from this address and port; the kernel chooses where either is 0.
    #[must_use]
    pub fn source(mut self, source: SocketAddr) -> Self {
        self.source = source;
        self
    }

    /// Sends these IPv4 options with every packet.
    #[must_use]
    pub fn ip_options(mut self, options: &[u8]) -> Self {
        options.clone_into(&mut self.ip_options);
        self
    }

    /// Limits the packets' time to live, or hop limit.
    #[must_use]
    pub fn hop_limit(mut self, hops: u8) -> Self {
        self.hop_limit = Some(hops);
        self
    }

    /// Gives up after `timeout` instead of [`PATIENCE`].
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Connects from `namespace`.
    ///
    /// # Errors
    /// The cause is an [`io::Error`]; see [`error_kind`].
    pub fn connect(&self, namespace: &Namespace, to: SocketAddr) -> Result<TcpStream> {
        namespace
            .run(|| {
                let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
                if self.source.port() != 0 || !self.source.ip().is_unspecified() {
                    socket.set_reuse_address(true)?;
                    socket.bind(&self.source.into())?;
                }
                if !self.ip_options.is_empty() {
                    crate::socket::set_ip_options(&socket, &self.ip_options)?;
                }
                if let Some(hops) = self.hop_limit {
                    crate::socket::set_hop_limit(&socket, hops)?;
                }
                socket.connect_timeout(&to.into(), self.timeout)?;
                let stream = TcpStream::from(socket);
                bound_waits(&stream)?;
                Ok(stream)
            })
            .with_context(|| format!("connecting to {to}/tcp from the {}", namespace.role()))
    }
}

/// The kind of the [`io::Error`] that caused `error`, if any.
pub fn error_kind(error: &anyhow::Error) -> Option<io::ErrorKind> {
    error
        .chain()
        .find_map(|cause| cause.downcast_ref::<io::Error>())
        .map(io::Error::kind)
}

fn bound_waits(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

/// Sends `message` from one end and checks that exactly these bytes arrive at the other.
pub fn send(mut from: &TcpStream, to: &TcpStream, message: &[u8]) -> Result<()> {
    from.write_all(message).context("sending")?;
    expect(to, message)
}

/// Checks that data passes in both directions between the two ends of a connection.
pub fn exchange(client: &TcpStream, server: &TcpStream) -> Result<()> {
    send(client, server, b"question")?;
    send(server, client, b"answer")
}

/// Checks that the next bytes are exactly `message`.
pub fn expect(mut stream: &TcpStream, message: &[u8]) -> Result<()> {
    let mut received = vec![0; message.len()];
    stream
        .read_exact(&mut received)
        .with_context(|| format!("waiting for {} bytes", message.len()))?;
    ensure!(
        received == message,
        "expected {message:02x?}, received {received:02x?}"
    );
    Ok(())
}

/// Receives exactly `N` bytes.
pub fn receive<const N: usize>(mut stream: &TcpStream) -> Result<[u8; N]> {
    let mut received = [0; N];
    stream
        .read_exact(&mut received)
        .with_context(|| format!("waiting for {N} bytes"))?;
    Ok(received)
}

/// Waits until the peer closes its side, and checks that no data comes before.
pub fn expect_end(mut stream: &TcpStream) -> Result<()> {
    let mut rest = [0; 16];
    let length = stream
        .read(&mut rest)
        .context("waiting for the peer to close")?;
    ensure!(
        length == 0,
        "expected the end of the stream, received {:02x?}",
        &rest[..length]
    );
    Ok(())
}

/// Waits until the peer resets the connection.
pub fn expect_reset(mut stream: &TcpStream) -> Result<()> {
    match stream.read(&mut [0; 16]) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
        Err(error) => Err(error).context("waiting for a reset"),
        Ok(length) => anyhow::bail!("expected a reset, received {length} bytes"),
    }
}

/// Resets a connection instead of closing it.
pub fn reset(stream: TcpStream) -> io::Result<()> {
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))
}
