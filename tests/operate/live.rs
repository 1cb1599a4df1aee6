//! Live traffic: connections that keep exchanging data, and numbered datagrams of which none may be lost.

use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use egress_tests::requirements::raise_open_file_limit;
use egress_tests::{Lab, Namespace, Network, PATIENCE, eventually, tcp, udp};

/// The time between two datagrams.
const INTERVAL: Duration = Duration::from_millis(1);

/// Traffic that runs while a test does something else.
pub struct Live<'l> {
    lab: &'l Lab,
    connections: Vec<(TcpStream, TcpStream)>,
    datagrams: [UdpSocket; 2],
}

/// The traffic counted during a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// Exchanges of data, there and back, on a connection.
    pub exchanges: u64,
    /// Datagrams sent. Each has arrived and been answered.
    pub datagrams: u64,
}

impl<'l> Live<'l> {
    /// Opens this many connections and a stream of datagrams.
    pub fn open(lab: &'l Lab, network: &Network, connections: usize) -> Result<Self> {
        raise_open_file_limit()?;
        let rule = network.http();
        let listener = tcp::listen(lab.servers(), rule.server())?;
        let connections = (0..connections)
            .map(|_| {
                let client = tcp::connect(lab.client(), rule.service())?;
                let (server, _) = tcp::accept(&listener)?;
                for stream in [&client, &server] {
                    stream.set_nodelay(true)?;
                }
                Ok((client, server))
            })
            .collect::<Result<_>>()?;
        let rule = network.datagram();
        let server = udp::bind(lab.servers(), rule.server())?;
        let client = udp::connect(lab.client(), rule.service())?;
        Ok(Self {
            lab,
            connections,
            datagrams: [client, server],
        })
    }

    /// Runs the traffic while `work` runs, and counts it.
    ///
    /// # Errors
    /// Those of `work`; and when a connection breaks, or a segment or a datagram is lost.
    pub fn during(&self, work: impl FnOnce() -> Result<()>) -> Result<Counted> {
        let before = self.lost()?;
        let is_over = AtomicBool::new(false);
        let (mut counted, worked) = thread::scope(|scope| {
            let exchanges = scope.spawn(|| self.exchange(&is_over));
            let datagrams = scope.spawn(|| self.count_datagrams(&is_over));
            let worked = work();
            is_over.store(true, Ordering::Relaxed);
            let exchanges = exchanges.join().expect("no panic")?;
            let datagrams = datagrams.join().expect("no panic")?;
            anyhow::Ok((
                Counted {
                    exchanges,
                    datagrams,
                },
                worked,
            ))
        })?;
        worked?;
        // Every connection must still work after `work`.
        for (number, (client, server)) in self.connections.iter().enumerate() {
            tcp::exchange(client, server)
                .with_context(|| format!("connection {number}, at the end"))?;
            counted.exchanges += 1;
        }
        // A delayed segment is acknowledged late.
        eventually("every segment has arrived", || {
            Ok((self.lost()? <= before).then_some(()))
        })
        .with_context(|| format!("{counted:?}"))?;
        Ok(counted)
    }

    fn exchange(&self, is_over: &AtomicBool) -> Result<u64> {
        let mut exchanges = 0;
        for (number, (client, server)) in self.connections.iter().enumerate().cycle() {
            if is_over.load(Ordering::Relaxed) {
                break;
            }
            tcp::exchange(client, server).with_context(|| format!("connection {number}"))?;
            exchanges += 1;
        }
        Ok(exchanges)
    }

    /// Sends numbered datagrams one after the other, without waiting for answers.
    fn count_datagrams(&self, is_over: &AtomicBool) -> Result<u64> {
        let [client, server] = &self.datagrams;
        let sent = AtomicU64::new(0);
        thread::scope(|scope| {
            let at_server = scope.spawn(|| {
                receive_all(server, &sent, is_over, |number, from| {
                    server.send_to(&number.to_be_bytes(), from)?;
                    Ok(())
                })
                .context("towards the server")
            });
            let at_client = scope.spawn(|| {
                receive_all(client, &sent, is_over, |_, _| Ok(())).context("towards the client")
            });
            let sending = || -> Result<u64> {
                while !is_over.load(Ordering::Relaxed) {
                    let number = sent.load(Ordering::Relaxed);
                    client.send(&number.to_be_bytes())?;
                    sent.store(number + 1, Ordering::Relaxed);
                    thread::sleep(INTERVAL);
                }
                Ok(sent.load(Ordering::Relaxed))
            };
            let sent = sending();
            let results = [at_server, at_client].map(|it| it.join().expect("no panic"));
            results.into_iter().collect::<Result<Vec<_>>>()?;
            sent
        })
    }

    /// Lost segments at either end: retransmissions, without those that the receiver reported as duplicates (duplicate
    /// SACK, RFC 2883). A busy machine delays segments enough to cause those.
    fn lost(&self) -> Result<u64> {
        let ends = [self.lab.client(), self.lab.servers()];
        let lost = ends.map(|end| {
            let repeated = counter(end, "TcpRetransSegs")?;
            let in_vain =
                counter(end, "TcpExtTCPDSACKRecv")? + counter(end, "TcpExtTCPDSACKOfoRecv")?;
            anyhow::Ok(repeated.saturating_sub(in_vain))
        });
        lost.into_iter().sum()
    }
}

/// Receives every number once and in order. Returns when `is_over` is set and none is missing.
fn receive_all(
    socket: &UdpSocket,
    sent: &AtomicU64,
    is_over: &AtomicBool,
    answer: impl Fn(u64, SocketAddr) -> Result<()>,
) -> Result<()> {
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let mut expected = 0;
    let mut last = Instant::now();
    loop {
        let is_last = is_over.load(Ordering::Relaxed);
        if is_last && expected == sent.load(Ordering::Relaxed) {
            return Ok(());
        }
        let mut number = [0; 8];
        match socket.recv_from(&mut number) {
            Ok((_, from)) => {
                let number = u64::from_be_bytes(number);
                ensure!(number == expected, "{number} arrived, {expected} is lost");
                expected += 1;
                last = Instant::now();
                answer(number, from)?;
            }
            Err(error) => ensure!(last.elapsed() < PATIENCE / 4, "{expected} is lost: {error}"),
        }
    }
}

/// A counter of a namespace, by its nstat(8) name.
fn counter(namespace: &Namespace, name: &str) -> Result<u64> {
    let text = namespace.output("nstat", ["-asz", name])?;
    let line = text.lines().find(|line| line.starts_with(name));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    let number = number.with_context(|| format!("nstat printed {text}"))?;
    Ok(number.parse()?)
}
