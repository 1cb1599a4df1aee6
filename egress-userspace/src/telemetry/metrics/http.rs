//! The HTTP/1.1 server: a few clients at a time, none for long.

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};

use super::pages::Pages;

/// How many clients wait in the kernel's queue.
const BACKLOG: u32 = 64;
/// How long a client may take for the header of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest header of a request; hyper takes no less.
const MAX_HEADER: usize = 8 * 1024;
/// How long a connection lives, however many requests it carries.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long it then has for the answer that is under way.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a client could not be accepted, as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no listener.
#[derive(Debug, Error)]
#[error("cannot listen on {address} of {device} for metrics: {source}")]
pub struct ListenError {
    address: SocketAddr,
    device: String,
    source: io::Error,
}

/// Listens on this address, for packets that arrive on `device` only.
pub(super) fn listen(address: SocketAddr, device: &str) -> Result<TcpListener, ListenError> {
    let listen = || {
        let socket = if address.is_ipv4() {
            TcpSocket::new_v4()
        } else {
            TcpSocket::new_v6()
        }?;
        socket.set_reuseaddr(true)?;
        socket.bind_device(Some(device.as_bytes()))?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| ListenError {
        address,
        device: device.to_owned(),
        source,
    })
}

/// A limit of clients, which several listeners may share.
#[derive(Clone)]
pub(super) struct Lane(Arc<Semaphore>);

impl Lane {
    pub fn new(clients: usize) -> Self {
        Self(Arc::new(Semaphore::new(clients)))
    }

    /// The next client, once there is room for one. It has its place as long as the permit lives.
    async fn admit(&self, listener: &TcpListener) -> (TcpStream, OwnedSemaphorePermit) {
        loop {
            let permit = Arc::clone(&self.0).acquire_owned().await;
            let permit = permit.expect("nobody closes the semaphore");
            match listener.accept().await {
                Ok((stream, _)) => return (stream, permit),
                Err(error) => log::warn!("cannot accept a client of the metrics: {error}"),
            }
            sleep(ACCEPT_PAUSE).await;
        }
    }
}

/// Serves the clients of a listener for as long as the runtime lives.
pub(super) async fn serve(listener: TcpListener, lane: Lane, pages: Arc<Pages>) {
    loop {
        let (stream, permit) = lane.admit(&listener).await;
        let pages = Arc::clone(&pages);
        tokio::spawn(async move {
            converse(stream, &pages).await;
            drop(permit);
        });
    }
}

async fn converse(stream: TcpStream, pages: &Pages) {
    let service = service_fn(async |request| Ok::<_, Infallible>(pages.answer(&request).await));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    if timeout(CONNECTION_TIMEOUT, connection.as_mut())
        .await
        .is_err()
    {
        connection.as_mut().graceful_shutdown();
        let _ = timeout(SHUTDOWN_TIMEOUT, connection).await;
    }
}
