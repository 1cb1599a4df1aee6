//! An HTTP server that answers with its client's address, and `curl` as its client.

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;

use anyhow::{Context as _, Result, anyhow, ensure};
use tiny_http::{Request, Response, Server};

use crate::PATIENCE;
use crate::namespace::Namespace;
use crate::tcp;

/// An HTTP server in a namespace. It stops on drop.
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
        // On drop the server connects to its own address to wake itself up. It therefore stays on a thread of its
        // namespace: in any other, the address would be some other host's.
        let thread = namespace.spawn(move || serve(listener, &stopped));
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for HttpServer {
    fn drop(&mut self) {
        // Both fail only if the thread has ended already.
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
            // A client that went away is not the server's error.
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

/// Fetches `http://address/path` from `namespace` with `curl`. Returns the body.
pub fn get(namespace: &Namespace, address: SocketAddr, path: &str) -> Result<String> {
    curl(namespace, &[&format!("http://{address}/{path}")])
}

/// Runs `curl` in `namespace`. A status of 400 or above is an error.
pub fn curl(namespace: &Namespace, arguments: &[&str]) -> Result<String> {
    run_curl(namespace, [&["--fail"], arguments].concat())
}

/// Runs `curl` in `namespace`. Returns the status and the body.
pub fn status_and_body(namespace: &Namespace, arguments: &[&str]) -> Result<(u16, String)> {
    let text = run_curl(
        namespace,
        [arguments, &["--write-out", "%{http_code}"]].concat(),
    )?;
    let (body, status) = text.split_at(text.len().checked_sub(3).context("no status")?);
    Ok((status.parse()?, body.to_owned()))
}

fn run_curl(namespace: &Namespace, arguments: Vec<&str>) -> Result<String> {
    let patience = PATIENCE.as_secs().to_string();
    // Ignores the user's ~/.curlrc and proxy variables.
    let fixed = [
        "-q",
        "--noproxy",
        "*",
        "--silent",
        "--show-error",
        // Square brackets belong to an IPv6 address, not to a range of URLs.
        "--globoff",
        "--max-time",
        &patience,
    ];
    namespace.output("curl", fixed.into_iter().chain(arguments))
}

/// The client address that the server saw, according to `GET /`.
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
