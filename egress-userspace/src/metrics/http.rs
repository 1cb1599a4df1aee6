//! The listener: HTTP/1.1, a few clients at a time, none for long.

use std::{
    convert::Infallible, future::pending, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ACCEPT, ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    sync::{Semaphore, mpsc, oneshot},
    time::{sleep, timeout},
};

use super::{
    census::{Cache, FlowTables},
    encode::{Format, encode},
    health,
    snapshot::Snapshot,
    state::RunState,
};
use crate::{dataplane::Maps, interface::Interfaces};

/// How many clients are served at once; others wait in the kernel's queue.
const CONNECTIONS: usize = 32;
const BACKLOG: u32 = 64;
/// How long a client may take for the header of a request.
const READ: Duration = Duration::from_secs(5);
/// How large that header may be; hyper takes no less.
const HEADER: usize = 8 * 1024;
/// How long a connection lives, however many requests it carries.
const LIFE: Duration = Duration::from_secs(30);
/// How long it then has for the answer that is under way.
const GRACE: Duration = Duration::from_secs(5);
/// How long the run loop has to answer a question.
const ANSWER: Duration = Duration::from_secs(2);
/// How long nobody is accepted after that has failed, as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no listener.
#[derive(Debug, Error)]
#[error("cannot listen on {address} of {device} for metrics: {source}")]
pub struct ListenError {
    address: SocketAddr,
    device: String,
    source: io::Error,
}

/// What a client wants to know of the run loop.
pub enum Question {
    /// For `/metrics`.
    Metrics(oneshot::Sender<Result<Reading, String>>),
    /// For `/healthz` and `/readyz`.
    State(oneshot::Sender<RunState>),
}

/// What the run loop reads at once, and what is walked later.
pub struct Reading {
    snapshot: Snapshot,
    tables: FlowTables,
}

impl Question {
    /// Answers. It takes a few system calls for each rule, and none for flows.
    pub fn answer(self, maps: &Maps, state: &RunState) {
        // The client may have gone meanwhile.
        match self {
            Self::Metrics(reply) => drop(reply.send(read(maps, state))),
            Self::State(reply) => drop(reply.send(state.clone())),
        }
    }
}

fn read(maps: &Maps, state: &RunState) -> Result<Reading, String> {
    let max_flows = maps.config().map_err(|error| error.to_string())?.max_flows;
    Ok(Reading {
        snapshot: Snapshot::take(maps, state).map_err(|error| error.to_string())?,
        tables: FlowTables::of(maps, max_flows).map_err(|error| error.to_string())?,
    })
}

/// The run loop's end: where the questions come from.
pub struct Endpoint(Option<mpsc::Receiver<Question>>);

impl Endpoint {
    /// Listens on `address` for as long as the runtime lives; on none, nobody will ever ask.
    ///
    /// On the cluster interface and the loopback only, whatever the address: nothing that comes in by the egress interface
    /// finds a socket.
    ///
    /// # Errors
    ///
    /// If the address cannot be had.
    pub fn listen(
        address: Option<SocketAddr>,
        cluster_interface: &str,
        kernel: &Interfaces,
    ) -> Result<Self, ListenError> {
        let Some(address) = address else {
            return Ok(Self(None));
        };
        let outer = bind(address, cluster_interface)?;
        let failed = |source| ListenError {
            address,
            device: cluster_interface.to_owned(),
            source,
        };
        // The port that was chosen, if any was to be.
        let address = outer.local_addr().map_err(failed)?;
        let inner = bind(address, "lo")?;
        let (questions, receiver) = mpsc::channel(CONNECTIONS);
        let server = Arc::new(Server {
            questions,
            kernel: kernel.clone(),
            census: Arc::default(),
            slots: Arc::new(Semaphore::new(CONNECTIONS)),
        });
        tokio::spawn(Arc::clone(&server).accept(outer));
        tokio::spawn(server.accept(inner));
        log::info!("metrics on http://{address}/metrics, by {cluster_interface} and lo");
        Ok(Self(Some(receiver)))
    }

    /// The next question.
    pub async fn question(&mut self) -> Question {
        match &mut self.0 {
            Some(questions) => match questions.recv().await {
                Some(question) => question,
                // The listener is gone, and with it who would ask.
                None => pending().await,
            },
            None => pending().await,
        }
    }
}

fn bind(address: SocketAddr, device: &str) -> Result<TcpListener, ListenError> {
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

struct Server {
    questions: mpsc::Sender<Question>,
    kernel: Interfaces,
    census: Arc<Cache>,
    slots: Arc<Semaphore>,
}

type Answer = Response<Full<Bytes>>;

impl Server {
    async fn accept(self: Arc<Self>, listener: TcpListener) {
        loop {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                return;
            };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let server = Arc::clone(&self);
                    tokio::spawn(async move {
                        server.serve(stream).await;
                        drop(slot);
                    });
                }
                Err(error) => {
                    log::warn!("cannot accept a client of the metrics: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, stream: TcpStream) {
        let service = service_fn(|request| {
            let server = Arc::clone(&self);
            async move { Ok::<_, Infallible>(server.answer(&request).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(READ)
            .max_buf_size(HEADER)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = pin!(connection);
        if timeout(LIFE, connection.as_mut()).await.is_err() {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(GRACE, connection).await;
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Answer {
        let path = request.uri().path();
        if !matches!(path, "/metrics" | "/healthz" | "/readyz") {
            let text = "/metrics, /healthz and /readyz are here\n";
            return plain(StatusCode::NOT_FOUND, text);
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut answer = plain(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n");
            let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
            answer.headers_mut().insert(ALLOW, allowed);
            return answer;
        }
        match path {
            "/metrics" => {
                let accept = request
                    .headers()
                    .get(ACCEPT)
                    .and_then(|it| it.to_str().ok());
                self.metrics(Format::accepted(accept)).await
            }
            "/healthz" => match self.ask(Question::State).await {
                Some(_) => plain(StatusCode::OK, "ok\n"),
                None => stuck(),
            },
            _ => self.ready().await,
        }
    }

    async fn metrics(&self, format: Format) -> Answer {
        match self.ask(Question::Metrics).await {
            Some(Ok(Reading { snapshot, tables })) => {
                let census = self.census.get(tables).await;
                match encode(Snapshot { census, ..snapshot }, format) {
                    Ok(text) => respond(StatusCode::OK, format.content_type(), text),
                    Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
                }
            }
            Some(Err(error)) => plain(StatusCode::INTERNAL_SERVER_ERROR, error + "\n"),
            None => stuck(),
        }
    }

    async fn ready(&self) -> Answer {
        let Some(state) = self.ask(Question::State).await else {
            return stuck();
        };
        let reasons = health::reasons(&state, &self.kernel).await;
        if reasons.is_empty() {
            plain(StatusCode::OK, "ready\n")
        } else {
            plain(StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n")
        }
    }

    /// Asks the run loop; `None` if it does not answer in time.
    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.questions.send(question(reply)).await.ok()?;
            answer.await.ok()
        };
        timeout(ANSWER, asked).await.ok()?
    }
}

fn stuck() -> Answer {
    plain(
        StatusCode::SERVICE_UNAVAILABLE,
        "the router's loop does not answer\n",
    )
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    respond(status, "text/plain; charset=utf-8", text)
}

fn respond(status: StatusCode, content_type: &'static str, text: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(text.into()));
    *answer.status_mut() = status;
    let content_type = hyper::header::HeaderValue::from_static(content_type);
    answer.headers_mut().insert(CONTENT_TYPE, content_type);
    answer
}
