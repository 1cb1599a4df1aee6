//! The HTTP/1.1 server, with limits on clients, requests and time.

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

/// The number of clients that wait in the kernel's accept queue.
const BACKLOG: u32 = 64;
/// How long a client may take to send the header of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum size of a request header, the smallest that hyper supports.
const MAX_HEADER: usize = 8 * 1024;
/// The maximum lifetime of a connection, however many requests it carries.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection that has timed out may take to finish its current answer.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a failed accept, such as when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why there is no listener.
#[derive(Debug, Error)]
#[error("cannot listen on {address} of {device} for metrics: {source}")]
pub struct ListenError {
    address: SocketAddr,
    device: String,
    source: io::Error,
}

/// Listens on `address`, only for packets that arrive on `device`.
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

    /// Accepts the next client once the limit allows one. The client counts until the permit is dropped.
    async fn admit(&self, listener: &TcpListener) -> (TcpStream, OwnedSemaphorePermit) {
        loop {
            let permit = Arc::clone(&self.0).acquire_owned().await;
            let permit = permit.expect("nobody closes the semaphore");
            match listener.accept().await {
                Ok((stream, _)) => return (stream, permit),
                Err(error) => log::warn!("cannot accept a metrics client: {error}"),
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
            serve_client(stream, &pages).await;
            drop(permit);
        });
    }
}

async fn serve_client(stream: TcpStream, pages: &Pages) {
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
