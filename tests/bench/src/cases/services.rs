//! The services that answer a case's clients, in the servers' namespace. They end with the case.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use egress_tests::cpu::pin;
use egress_tests::{Namespace, PATIENCE, tcp, udp};
use nix::sys::socket::{Shutdown as Direction, shutdown};

/// How often an idle service checks whether it should end.
const LOOK: Duration = Duration::from_millis(200);

/// A listener that accepts connections until it is dropped.
#[derive(Debug)]
pub struct Listener(TcpListener);

impl Listener {
    /// Serves the connections in turn, on one CPU.
    pub fn start(
        namespace: &Namespace,
        address: SocketAddr,
        cpu: usize,
        serve: impl Fn(TcpStream) -> io::Result<()> + Send + 'static,
    ) -> Result<Self> {
        let listener = tcp::listen(namespace, address)?;
        let accepting = listener.try_clone().context("sharing a listener")?;
        thread::spawn(move || -> Result<()> {
            pin(cpu)?;
            loop {
                match accepting.accept() {
                    // A client that breaks off reports the error itself.
                    Ok((stream, _)) => drop(serve(stream)),
                    // No client has connected for a while.
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error.into()),
                }
            }
        });
        Ok(Self(listener))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Ends the thread's accept(2). On Linux this works for listening sockets.
        let _ = shutdown(self.0.as_raw_fd(), Direction::Both);
    }
}

/// Answers one byte with one byte, and closes the connection first.
pub fn answer_once(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    stream.write_all(&byte)
}

/// Answers every byte until the client closes.
pub fn answer_always(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut byte = [0];
    loop {
        stream.read_exact(&mut byte)?;
        stream.write_all(&byte)?;
    }
}

/// Receives everything that clients send, each connection on its own thread but all on one CPU, and counts the bytes.
pub fn count_bytes(counter: Arc<AtomicU64>, cpu: usize) -> impl Fn(TcpStream) -> io::Result<()> {
    move |mut stream| {
        let counter = Arc::clone(&counter);
        thread::spawn(move || -> Result<()> {
            pin(cpu)?;
            let mut block = vec![0; 256 * 1024];
            loop {
                match stream.read(&mut block)? {
                    0 => return Ok(()),
                    length => counter.fetch_add(length as u64, Ordering::Release),
                };
            }
        });
        Ok(())
    }
}

/// Echoes datagrams until it is dropped.
#[derive(Debug)]
pub struct Echo(Arc<AtomicBool>);

impl Echo {
    /// Starts to answer at this address, on one CPU.
    pub fn start(namespace: &Namespace, address: SocketAddr, cpu: usize) -> Result<Self> {
        let socket = udp::bind(namespace, address)?;
        socket.set_read_timeout(Some(LOOK))?;
        let ended = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&ended);
        thread::spawn(move || {
            pin(cpu)?;
            echo(&socket, &seen)
        });
        Ok(Self(ended))
    }
}

fn echo(socket: &UdpSocket, ended: &AtomicBool) -> Result<()> {
    let mut datagram = [0; 64];
    while !ended.load(Ordering::Relaxed) {
        match socket.recv_from(&mut datagram) {
            Ok((length, peer)) => {
                socket.send_to(&datagram[..length], peer)?;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Connections that are closed on drop, so that their services end.
#[derive(Debug)]
pub struct Connections(pub Vec<TcpStream>);

impl Drop for Connections {
    fn drop(&mut self) {
        for stream in &self.0 {
            // A broken connection needs no shutdown.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}
