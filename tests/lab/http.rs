//! An HTTP server that tells who asked, and `curl` as its client.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow, ensure};
use tiny_http::{Request, Response, Server};

use crate::PATIENCE;
use crate::namespace::Namespace;
use crate::tcp;

/// An HTTP server in a namespace, until it is dropped.
///
/// - `GET /` answers with the client's address as the server sees it.
/// - `GET /bytes/N` answers with N bytes.
/// - `POST /` answers with the length of the body.
#[derive(Debug)]
pub struct HttpServer {
    stop: mpsc::Sender<()>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl HttpServer {
    /// Serves on `address` in `namespace`.
    pub fn start(namespace: &Namespace, address: SocketAddr) -> Result<Self> {
        let listener = tcp::listen(namespace, address)?;
        listener.set_nonblocking(false)?;
        socket2::SockRef::from(&listener).set_read_timeout(None)?;
        let (stop, stopped) = mpsc::channel();
        // The server belongs to a thread of its namespace to its end: when it is
        // dropped it connects to its own address, which is elsewhere's address
        // in any other namespace.
        let thread = namespace.spawn(move || serve(listener, &stopped));
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        // Both fail only if the thread is gone already, which is what they are for.
        let _ = self.stop.send(());
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn serve(listener: std::net::TcpListener, stopped: &mpsc::Receiver<()>) -> Result<()> {
    const POLL: std::time::Duration = std::time::Duration::from_millis(20);
    let server = Server::from_listener(listener, None)
        .map_err(|error| anyhow!("starting the HTTP server: {error}"))?;
    while matches!(stopped.try_recv(), Err(mpsc::TryRecvError::Empty)) {
        if let Some(request) = server.recv_timeout(POLL)? {
            // A client that went away is the client's business.
            let _ = answer(request);
        }
    }
    Ok(())
}

fn answer(mut request: Request) -> std::io::Result<()> {
    let bytes = request.url().strip_prefix("/bytes/").map(str::parse::<u64>);
    match (request.method().as_str(), bytes) {
        ("GET", Some(Ok(bytes))) => {
            let length = usize::try_from(bytes).ok();
            let body = std::io::repeat(b'.').take(bytes);
            request.respond(Response::new(200.into(), Vec::new(), body, length, None))
        }
        ("GET", None) => {
            let peer = request
                .remote_addr()
                .map_or_else(String::new, |peer| peer.ip().to_string());
            request.respond(Response::from_string(peer + "\n"))
        }
        ("POST", None) => {
            let length = std::io::copy(request.as_reader(), &mut std::io::sink())?;
            request.respond(Response::from_string(format!("{length}\n")))
        }
        _ => request.respond(Response::from_string("no such page\n").with_status_code(404)),
    }
}

/// Gets `http://address/path` from `namespace` with `curl` and returns the body.
pub fn get(namespace: &Namespace, address: SocketAddr, path: &str) -> Result<String> {
    curl(namespace, &[&format!("http://{address}/{path}")])
}

/// Runs `curl` in `namespace`; a status of 400 or above is an error.
pub fn curl(namespace: &Namespace, arguments: &[&str]) -> Result<String> {
    let patience = PATIENCE.as_secs().to_string();
    // What a person's ~/.curlrc or environment says about proxies stays out.
    let fixed = [
        "-q",
        "--noproxy",
        "*",
        "--silent",
        "--show-error",
        "--fail",
        // Brackets are those of an IPv6 address, not a range of URLs.
        "--globoff",
        "--max-time",
        &patience,
    ];
    namespace.output("curl", fixed.iter().chain(arguments))
}

/// The address that `GET /` says the server saw.
pub fn seen_by_the_server(namespace: &Namespace, service: SocketAddr) -> Result<IpAddr> {
    let body = get(namespace, service, "")?;
    ensure!(
        !body.trim().is_empty(),
        "the server did not know its client's address"
    );
    body.trim()
        .parse()
        .with_context(|| format!("the server answered {body:?}, not an address"))
}
