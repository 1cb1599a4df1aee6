//! The actions of a soak run.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use egress_tests::addresses::{NETWORKS, UNDEFINED_PORT, is_reserved};
use egress_tests::{
    Connection, Lab, Network, PATIENCE, Rule, Spec, bulk, fragment, icmp, tcp, udp,
};
use fastrand::Rng;

use crate::router::Router;

/// The most connections that stay open at a time.
const CONNECTIONS: usize = 100;

/// How long to wait for a datagram. Some are lost after a host has changed its MAC address, until others learn it. The
/// kernel ignores a second announcement within a second, and needs several attempts to find out by itself.
const LOST_AFTER: Duration = Duration::from_secs(1);
const ATTEMPTS: u32 = 30;

/// Repeats an action whose datagrams may be lost, as any sender of datagrams must.
fn until_it_arrives(mut action: impl FnMut() -> Result<()>) -> Result<()> {
    let is_lost = |error: &anyhow::Error| {
        error.chain().any(|cause| {
            let cause = cause.downcast_ref::<io::Error>();
            cause.is_some_and(|cause| cause.kind() == io::ErrorKind::WouldBlock)
        })
    };
    for _ in 1..ATTEMPTS {
        match action() {
            Err(error) if is_lost(&error) => {}
            result => return result,
        }
    }
    action()
}

/// One action of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Opens a connection that stays open.
    Open,
    /// Sends data over an open connection, in both directions.
    Exchange,
    /// Closes an open connection from either side, or resets it.
    Close,
    /// Sends a megabyte over a new connection.
    Transfer,
    /// Exchanges a question and an answer over UDP, of any length.
    Datagrams,
    /// The same, in fragments out of order.
    Fragments,
    /// Connects to a port without a rule.
    Refusal,
    /// Pings the router, which answers itself.
    Ping,
    /// Makes hosts forget their neighbours.
    Neighbours,
    /// Changes the gateway's MAC address.
    Gateway,
    /// Changes the cluster's MTU.
    Mtu,
    /// Adds an address to the router's `eth0`, and removes it.
    Address,
    /// Restarts the router with its rules in another order.
    Restart,
}

impl Action {
    /// All actions, the frequent ones several times.
    pub const ALL: [Self; 32] = {
        use Action::{
            Address, Close, Datagrams, Exchange, Fragments, Gateway, Mtu, Neighbours, Open, Ping,
            Refusal, Restart, Transfer,
        };
        [
            Open, Open, Open, Open, Open, Exchange, Exchange, Exchange, Exchange, Exchange,
            Exchange, Exchange, Exchange, Close, Close, Close, Transfer, Transfer, Datagrams,
            Datagrams, Datagrams, Datagrams, Fragments, Fragments, Refusal, Refusal, Ping,
            Neighbours, Gateway, Mtu, Address, Restart,
        ]
    };
}

/// A lab with its router, and the state of its traffic.
pub struct Traffic {
    lab: Lab,
    router: Option<Router>,
    listeners: Vec<(Rule, TcpListener)>,
    connections: Vec<Connection>,
    counts: BTreeMap<Action, u64>,
    most_flows: u64,
}

impl Traffic {
    pub fn new() -> Result<Self> {
        let lab = Lab::builder().clients(4).build()?;
        let mut listeners = Vec::new();
        for rule in NETWORKS
            .iter()
            .flat_map(|network| [network.http(), network.tls()])
        {
            listeners.push((rule, tcp::listen(lab.servers(), rule.server())?));
        }
        for version in ["ipv4", "ipv6"] {
            let notify = if version == "ipv4" {
                "arp_notify"
            } else {
                "ndisc_notify"
            };
            lab.gateway()
                .set_sysctl(&format!("net.{version}.conf.lan0.{notify}"), "1")?;
        }
        let router = Some(Router::start(&lab, &Spec::dual_stack())?);
        Ok(Self {
            lab,
            router,
            listeners,
            connections: Vec::new(),
            counts: BTreeMap::new(),
            most_flows: 0,
        })
    }

    pub fn router(&self) -> &Router {
        self.router
            .as_ref()
            .expect("the router runs between actions")
    }

    pub fn counts(&self) -> BTreeMap<Action, u64> {
        self.counts.clone()
    }

    pub fn open_connections(&self) -> usize {
        self.connections.len()
    }

    /// The largest number of flows that the router has reported.
    pub const fn most_flows(&self) -> u64 {
        self.most_flows
    }

    pub fn close_all(&mut self) {
        self.connections.clear();
    }

    pub fn perform(&mut self, action: Action, random: &mut Rng) -> Result<()> {
        *self.counts.entry(action).or_default() += 1;
        let network = &NETWORKS[random.usize(..NETWORKS.len())];
        match action {
            Action::Open if self.connections.len() < CONNECTIONS => self.open(random),
            Action::Open => Ok(()),
            Action::Exchange => self.exchange(random),
            Action::Close => self.close(random),
            Action::Transfer => self.transfer(random),
            Action::Datagrams => until_it_arrives(|| self.datagrams(network, random)),
            Action::Fragments => until_it_arrives(|| self.fragments(network, random)),
            Action::Refusal => self.refusal(network, random),
            Action::Ping => icmp::ping(self.client(random), network.router_eth0.address, PATIENCE),
            Action::Neighbours => self.forget_neighbours(random),
            Action::Gateway => self.change_gateway(random),
            Action::Mtu => {
                let mtu = random
                    .choice([1280, 1400, 1500])
                    .expect("the list is not empty");
                // The hosts' MTU, too: none receives packets longer than its own.
                let hosts = self.lab.clients().iter().chain([self.lab.router()]);
                for host in hosts {
                    host.ip([format!("link set eth0 mtu {mtu}")])?;
                }
                Ok(())
            }
            Action::Address => {
                let address = format!("10.128.0.{}/24", random.u8(200..=220));
                self.lab.router().ip([
                    format!("addr add {address} dev eth0"),
                    format!("addr del {address} dev eth0"),
                ])
            }
            // Rarely, because it ends all connections.
            Action::Restart if random.u8(..20) == 0 => self.restart(random),
            Action::Restart => Ok(()),
        }
    }

    fn client(&self, random: &mut Rng) -> &egress_tests::Namespace {
        let clients = self.lab.clients();
        &clients[random.usize(..clients.len())]
    }

    fn connect(&self, random: &mut Rng) -> Result<Connection> {
        let (rule, listener) = &self.listeners[random.usize(..self.listeners.len())];
        let client = tcp::connect(self.client(random), rule.service())?;
        let (server, seen_by_server) = tcp::accept(listener)?;
        ensure!(
            is_reserved(seen_by_server.ip()),
            "{seen_by_server} is not the reserved address"
        );
        Ok(Connection {
            client,
            server,
            seen_by_server,
        })
    }

    fn open(&mut self, random: &mut Rng) -> Result<()> {
        let connection = self.connect(random)?;
        self.connections.push(connection);
        Ok(())
    }

    fn exchange(&mut self, random: &mut Rng) -> Result<()> {
        for Connection { client, server, .. } in &self.connections {
            if random.bool() {
                let text = vec![random.u8(..); random.usize(1..5_000)];
                tcp::send(client, server, &text)?;
                tcp::send(server, client, &text)?;
            }
        }
        let flows = self.router().flows()?;
        self.most_flows = self.most_flows.max(flows);
        Ok(())
    }

    fn close(&mut self, random: &mut Rng) -> Result<()> {
        if self.connections.is_empty() {
            return Ok(());
        }
        let Connection { client, server, .. } = self
            .connections
            .swap_remove(random.usize(..self.connections.len()));
        let (first, second) = if random.bool() {
            (client, server)
        } else {
            (server, client)
        };
        if random.bool() {
            // The other side must hear of the reset, or its end would stay open forever.
            tcp::send(&first, &second, b"farewell")?;
            tcp::send(&second, &first, b"farewell")?;
            tcp::reset(first)?;
            tcp::expect_reset(&second)
        } else {
            drop(first);
            tcp::expect_end(&second)
        }
    }

    fn transfer(&self, random: &mut Rng) -> Result<()> {
        let Connection { client, server, .. } = self.connect(random)?;
        let (from, to) = if random.bool() {
            (client, server)
        } else {
            (server, client)
        };
        bulk::compare(from, to, 1_000_000, random.u8(..))
    }

    fn datagrams(&self, network: &Network, random: &mut Rng) -> Result<()> {
        let server = udp::bind(self.lab.servers(), network.datagram().server())?;
        let client = udp::connect(self.client(random), network.datagram().service())?;
        // Within the smallest MTU. Senders have to discover it, so a first datagram above it may be lost.
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(LOST_AFTER))?;
        }
        let length = random.usize(1..1_100);
        let text = |byte: u8| vec![byte; length];
        udp::exchange(&client, &server, &text(1), &text(2))?;
        Ok(())
    }

    fn fragments(&self, network: &Network, random: &mut Rng) -> Result<()> {
        let server = udp::bind(self.lab.servers(), network.datagram().server())?;
        let service = network.datagram().service();
        let from = SocketAddr::new(network.client(0).address, random.u16(20_000..30_000));
        let question: Vec<u8> = (0..random.usize(500..2_500))
            .map(|_| random.u8(..))
            .collect();
        let packet = udp::packet(from, service, &question)?;
        let mut fragments = fragment::cut(&packet, 408, random.u16(1..))?;
        random.shuffle(&mut fragments);
        fragment::send(self.lab.client(), service, &fragments)?;
        server.set_read_timeout(Some(LOST_AFTER))?;
        let (received, _) = udp::receive(&server)?;
        ensure!(received == question, "another datagram arrived");
        Ok(())
    }

    fn refusal(&self, network: &Network, random: &mut Rng) -> Result<()> {
        let undefined = SocketAddr::new(network.router_eth0.address, UNDEFINED_PORT);
        ensure!(
            tcp::connect(self.client(random), undefined).is_err(),
            "{undefined} took a connection"
        );
        Ok(())
    }

    fn forget_neighbours(&self, random: &mut Rng) -> Result<()> {
        let hosts = [
            (self.client(random), "eth0"),
            (self.lab.router(), "eth0"),
            (self.lab.router(), "net1"),
            (self.lab.gateway(), "lan0"),
        ];
        for (host, interface) in hosts {
            host.ip([format!("neighbour flush dev {interface}")])?;
        }
        Ok(())
    }

    fn change_gateway(&self, random: &mut Rng) -> Result<()> {
        let [a, b, c] = [random.u8(..), random.u8(..), random.u8(..)];
        self.lab.gateway().ip([format!(
            "link set lan0 address 02:00:5e:{a:02x}:{b:02x}:{c:02x}"
        )])
    }

    /// Restarts the router with its rules in another order. This ends its flows, and with them the connections.
    pub fn restart(&mut self, random: &mut Rng) -> Result<()> {
        self.close_all();
        if let Some(router) = self.router.take() {
            router.stop()?;
        }
        let mut spec = Spec::dual_stack();
        random.shuffle(&mut spec.rules);
        self.router = Some(Router::start(&self.lab, &spec).context("starting anew")?);
        Ok(())
    }
}
