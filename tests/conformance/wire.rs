//! A router between two wires, with only this process at their far ends.
//!
//! Clients and servers are two packet sockets: packets arrive at the router exactly as written, and nothing answers on
//! its own. The test need not wait for silence to see everything that the router sends. Packets that one CPU forwards
//! stay in order, so when a later packet of another flow, the *barrier*, comes out on the other side, everything before
//! it has left.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use egress_tests::addresses::{MAX_CLIENTS, NETWORKS, Network, V6};
use egress_tests::namespace::Mac;
use egress_tests::{Namespace, PATIENCE, capture, ethtool};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, send};

use crate::checksum;
use crate::family::Family;

/// `eth0`'s MTU, typical of an overlay network.
pub const CLUSTER_MTU: u16 = 1_400;
/// `net1`'s MTU, that of Ethernet.
const OUTSIDE_MTU: u16 = 1_500;
const ETHERNET_LEN: usize = 14;
const LONGEST_FRAME: usize = 9_216;
/// The last client. Scripts use the others.
const BARRIER_CLIENT: u8 = MAX_CLIENTS - 1;
const BARRIER_PORT: u16 = 1_024;
const BARRIER_MARK: &[u8; 12] = b"the barrier:";
/// The length of the mark and a number.
const MARK_LEN: usize = 16;

/// A side of the router, where packets enter or leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// `eth0`, with the clients.
    Cluster,
    /// `net1`, with the servers and all other hosts.
    Outside,
}

impl Side {
    /// Both sides.
    pub const BOTH: [Self; 2] = [Self::Cluster, Self::Outside];

    /// The other side.
    pub const fn other(self) -> Self {
        match self {
            Self::Cluster => Self::Outside,
            Self::Outside => Self::Cluster,
        }
    }
}

/// An IP packet that has left the router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The side on which it left.
    pub side: Side,
    /// The packet, from its IP header on.
    pub packet: Vec<u8>,
}

/// A router's network, without the router's rules.
#[derive(Debug)]
pub struct Wire {
    /// The namespace of the router's pod.
    pub router: Namespace,
    /// The namespace of the wires' far ends.
    _hosts: Namespace,
    cluster: Endpoint,
    outside: Endpoint,
    barriers: Option<Barriers>,
}

/// The flow of the barriers.
#[derive(Clone, Copy, Debug)]
struct Barriers {
    network: Network,
    family: Family,
    /// The flow's NAT port.
    nat_port: u16,
    sent: u32,
}

impl Wire {
    /// Joins a router's pod to two wires.
    pub fn new() -> Result<Self> {
        let router = Namespace::new("router")?;
        let hosts = Namespace::new("hosts")?;
        join(&router, &hosts).context("joining the router to its wires")?;
        let mac = |name| router.interface(name).map(|interface| interface.mac);
        Ok(Self {
            cluster: Endpoint::open(&hosts, "cluster0", mac("eth0")?)?,
            outside: Endpoint::open(&hosts, "outside0", mac("net1")?)?,
            router,
            _hosts: hosts,
            barriers: None,
        })
    }

    /// Opens the flow of the barriers. The router must redirect already.
    pub fn open_barriers(&mut self, family: Family) -> Result<()> {
        let network = family.network();
        let mut barriers = Barriers {
            network,
            family,
            nat_port: BARRIER_PORT,
            sent: 0,
        };
        let deadline = Instant::now() + PATIENCE;
        let first = self.first_barrier(&mut barriers, Side::Cluster, deadline)?;
        let payload = family.header_len();
        let port = first.get(payload..payload + 2).context("a short packet")?;
        barriers.nat_port = u16::from_be_bytes([port[0], port[1]]);
        self.first_barrier(&mut barriers, Side::Outside, deadline)?;
        self.barriers = Some(barriers);
        self.wait_for_addresses(deadline)
    }

    /// Sends barriers in on one side until one comes out. A new interface sends nothing before its link is up, and each
    /// direction has its own.
    fn first_barrier(
        &self,
        barriers: &mut Barriers,
        side: Side,
        deadline: Instant,
    ) -> Result<Vec<u8>> {
        let (entrance, exit) = self.entrance_and_exit(side);
        loop {
            ensure!(
                Instant::now() < deadline,
                "the router forwards nothing that enters on {side:?}"
            );
            let (_, frame) = barriers.next(side);
            entrance.send(barriers.family, &frame)?;
            let soon = Instant::now() + Duration::from_millis(20);
            match exit.receive_before(soon)? {
                Some(packet) if is_barrier(&packet) => return Ok(packet),
                _ => {}
            }
        }
    }

    fn entrance_and_exit(&self, side: Side) -> (&Endpoint, &Endpoint) {
        match side {
            Side::Cluster => (&self.cluster, &self.outside),
            Side::Outside => (&self.outside, &self.cluster),
        }
    }

    /// Waits for the IPv6 addresses, which the kernel uses only some time after they were added.
    fn wait_for_addresses(&self, deadline: Instant) -> Result<()> {
        loop {
            let local = self
                .router
                .output("ip", ["-6", "route", "show", "table", "local"])?;
            let is_there = |address: IpAddr| local.contains(&format!("local {address} "));
            if is_there(V6.router_eth0.address) && is_there(V6.router_net1.address) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "not all addresses are usable:\n{local}"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends packets in on one side. Returns everything that leaves because of them.
    ///
    /// # Errors
    /// When the barrier after them does not come out: the router is broken.
    pub fn exchange(&mut self, side: Side, packets: &[Vec<u8>]) -> Result<Vec<Output>> {
        let barriers = self
            .barriers
            .as_mut()
            .context("the barriers are not open")?;
        let family = barriers.family;
        let (mark, barrier) = barriers.next(side);
        let (entrance, exit) = self.entrance_and_exit(side);
        for packet in packets {
            entrance.send(family, packet)?;
        }
        entrance.send(family, &barrier)?;

        let mut outputs = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let packet = exit.receive_before(deadline)?.with_context(|| {
                format!("a packet of an open flow did not leave on the other side of {side:?}")
            })?;
            if packet.ends_with(&mark) {
                break;
            }
            outputs.push(Output {
                side: side.other(),
                packet,
            });
        }
        while let Some(packet) = entrance.receive()? {
            outputs.push(Output { side, packet });
        }
        outputs.retain(|output| !is_noise(&output.packet) && !is_barrier(&output.packet));
        Ok(outputs)
    }
}

impl Barriers {
    /// The next barrier, and the mark at its end.
    fn next(&mut self, side: Side) -> ([u8; MARK_LEN], Vec<u8>) {
        self.sent += 1;
        let mut mark = [0; MARK_LEN];
        mark[..12].copy_from_slice(BARRIER_MARK);
        mark[12..].copy_from_slice(&self.sent.to_be_bytes());
        let rule = self.network.datagram();
        let (source, destination) = match side {
            Side::Cluster => (
                (self.network.client(BARRIER_CLIENT).address, BARRIER_PORT).into(),
                rule.service(),
            ),
            Side::Outside => (
                rule.server(),
                (self.network.router_net1.address, self.nat_port).into(),
            ),
        };
        let packet = checksum::datagram(self.family, source, destination, &mark);
        (mark, packet)
    }
}

/// Whether the router's own stack sent the packet unasked: neighbour discovery, and joining its multicast groups.
fn is_noise(packet: &[u8]) -> bool {
    const ALL_NODES_AND_OTHERS: u8 = 0xff;
    packet.first().is_some_and(|first| first >> 4 == 6)
        && packet.get(24) == Some(&ALL_NODES_AND_OTHERS)
}

fn is_barrier(packet: &[u8]) -> bool {
    packet
        .split_last_chunk::<MARK_LEN>()
        .is_some_and(|(_, mark)| mark.starts_with(BARRIER_MARK))
}

fn join(router: &Namespace, hosts: &Namespace) -> Result<()> {
    // Only interfaces created later get these defaults.
    hosts.set_sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
    settle(router)?;
    hosts.ip([
        format!(
            "link add cluster0 arp off type veth peer name eth0 mtu {CLUSTER_MTU} netns {}",
            router.path().display()
        ),
        "link add outside0 arp off type veth peer name ext0".to_owned(),
        format!(
            "link add link ext0 name net1 netns {} type macvlan mode bridge",
            router.path().display()
        ),
        "link set cluster0 up".to_owned(),
        "link set outside0 up".to_owned(),
        "link set ext0 arp off up".to_owned(),
    ])?;
    for interface in ["eth0", "net1"] {
        ethtool::finish_checksums_in_software(router, interface)?;
    }
    ethtool::finish_checksums_in_software(hosts, "ext0")?;
    let cluster = hosts.interface("cluster0")?.mac;
    let outside = hosts.interface("outside0")?.mac;
    let mut lines = vec!["link set eth0 up".to_owned(), "link set net1 up".to_owned()];
    for network in NETWORKS {
        lines.extend(addresses_of_the_router(&network));
        lines.extend(neighbours_of_the_router(&network, cluster, outside));
    }
    router.ip(lines)
}

/// Settings of a pod, except for those that would make the router's answers depend on time or on earlier packets.
fn settle(router: &Namespace) -> Result<()> {
    const SETTINGS: [(&str, &str); 14] = [
        ("net.ipv4.icmp_ratelimit", "0"),
        ("net.ipv6.icmp.ratelimit", "0"),
        ("net.ipv6.auto_flowlabels", "0"),
        ("net.ipv6.conf.default.accept_dad", "0"),
        ("net.ipv6.conf.default.accept_ra", "0"),
        ("net.ipv6.conf.default.accept_redirects", "0"),
        ("net.ipv4.conf.all.accept_redirects", "0"),
        ("net.ipv4.conf.default.accept_redirects", "0"),
        ("net.ipv4.conf.all.rp_filter", "0"),
        ("net.ipv4.conf.default.rp_filter", "0"),
        ("net.ipv4.ipfrag_time", "3600"),
        ("net.ipv6.ip6frag_time", "3600"),
        ("net.ipv4.ipfrag_high_thresh", "268435456"),
        ("net.ipv6.ip6frag_high_thresh", "268435456"),
    ];
    for (name, value) in SETTINGS {
        router.set_sysctl(name, value)?;
    }
    // On older kernels this is one limit for the whole machine, which must not change.
    for name in ["net.ipv4.icmp_msgs_per_sec", "net.ipv4.icmp_msgs_burst"] {
        if router.sysctl(name).is_ok() {
            router.set_sysctl(name, "1000000")?;
        }
    }
    Ok(())
}

/// Every route has a locked MTU, which ICMP errors to the pod do not change.
fn addresses_of_the_router(network: &Network) -> Vec<String> {
    let mut lines = vec![
        format!("address add {} dev eth0 noprefixroute", network.router_eth0),
        format!("address add {} dev net1 noprefixroute", network.router_net1),
        format!(
            "route add {} dev eth0 mtu lock {CLUSTER_MTU}",
            network.cluster
        ),
    ];
    lines.extend(
        [network.gateway, network.neighbour]
            .map(|host| format!("route add {} dev net1 mtu lock {OUTSIDE_MTU}", host.address)),
    );
    lines.push(format!(
        "route add default via {} dev net1 mtu lock {OUTSIDE_MTU}",
        network.gateway.address
    ));
    lines
}

fn neighbours_of_the_router(network: &Network, cluster: Mac, outside: Mac) -> Vec<String> {
    let clients = (0..MAX_CLIENTS).map(|index| (network.client(index).address, cluster, "eth0"));
    let outsiders =
        [network.gateway, network.neighbour].map(|host| (host.address, outside, "net1"));
    clients
        .chain(outsiders)
        .map(|(address, mac, interface)| {
            format!("neighbour replace {address} lladdr {mac} nud permanent dev {interface}")
        })
        .collect()
}

/// An end of a wire.
#[derive(Debug)]
struct Endpoint {
    socket: OwnedFd,
    name: &'static str,
    own: Mac,
    router: Mac,
}

impl Endpoint {
    fn open(hosts: &Namespace, name: &'static str, router: Mac) -> Result<Self> {
        let interface = hosts.interface(name)?;
        Ok(Self {
            socket: hosts.run(|| capture::received_on(interface.index))?,
            name,
            own: interface.mac,
            router,
        })
    }

    fn send(&self, family: Family, packet: &[u8]) -> Result<()> {
        let mut frame = [0; LONGEST_FRAME];
        let length = ETHERNET_LEN + packet.len();
        ensure!(length <= LONGEST_FRAME, "a frame of {length} bytes");
        frame[..6].copy_from_slice(&self.router.0);
        frame[6..12].copy_from_slice(&self.own.0);
        frame[12..14].copy_from_slice(&family.ethertype().to_be_bytes());
        frame[ETHERNET_LEN..length].copy_from_slice(packet);
        send(self.socket.as_raw_fd(), &frame[..length], MsgFlags::empty())
            .with_context(|| format!("sending {length} bytes on {}", self.name))?;
        Ok(())
    }

    /// The next IP packet, if one has arrived.
    fn receive(&self) -> Result<Option<Vec<u8>>> {
        let mut frame = [0; LONGEST_FRAME];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => return Ok(None),
                Err(Errno::EINTR) => continue,
                Err(error) => bail!("receiving on {}: {error}", self.name),
            };
            if let [0x08, 0x00] | [0x86, 0xdd] = frame[12..ETHERNET_LEN] {
                return Ok(Some(frame[ETHERNET_LEN..length].to_vec()));
            }
        }
    }

    /// Waits for the next IP packet.
    fn receive_before(&self, deadline: Instant) -> Result<Option<Vec<u8>>> {
        loop {
            if let Some(packet) = self.receive()? {
                return Ok(Some(packet));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(
                &mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)],
                timeout,
            ) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => bail!("waiting on {}: {error}", self.name),
            }
        }
    }
}
