//! Real traffic through a router in a lab: what clients, servers and hosts
//! beside the router notice of it.
//!
//! `EGRESS_TEST_DATAPLANE=nftables` runs the same tests against the kernel's
//! own NAT, which shows that a test asks for nothing peculiar to our dataplane.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;
use std::{fs, io};

use anyhow::{Context as _, Result, ensure};
use aya::programs::{SchedClassifier, TcAttachType, loaded_programs};
use egress_tests::addresses::{CLUSTER, DATAGRAM, HTTP, NEIGHBOUR, ROUTER_ETH0, ROUTER_NET1, TLS};
use egress_tests::frame::{Frame, Packet, Transport};
use egress_tests::http::{self, HttpServer};
use egress_tests::requirements::raise_open_file_limit;
use egress_tests::router::example_spec;
use egress_tests::{
    Capture, Dataplane, Lab, Namespace, PATIENCE, RouterProcess, Rule, addresses, bulk, icmp,
    skip_unless_lab_works, socket, tcp, udp,
};

/// A port that no rule names.
const UNDEFINED_PORT: u16 = 9090;
/// Long enough for a packet to cross the lab, for tests that expect none to.
const A_WHILE: Duration = Duration::from_millis(400);

/// The dataplane of a test, whose log is shown if the test fails.
struct Running(Option<RouterProcess>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(router) = &self.0 {
            eprintln!("the router's log:\n{}", router.log());
        }
    }
}

fn start(lab: &Lab) -> Result<Running> {
    Ok(Running(match Dataplane::from_env()? {
        Dataplane::EgressRouter => Some(lab.start_router(&example_spec())?),
        Dataplane::Nftables => {
            lab.start_nftables()?;
            None
        }
    }))
}

/// Skips the test that it stands in when nftables is the dataplane.
macro_rules! skip_on_nftables {
    ($reason:literal) => {
        if Dataplane::from_env()? == Dataplane::Nftables {
            let test = egress_tests::function_name!();
            egress_tests::requirements::skipped(test, concat!("nftables: ", $reason));
            return Ok(());
        }
    };
}

/// A connection through the router: the client's end and the server's.
struct Connection {
    client: TcpStream,
    server: TcpStream,
    seen_by_server: SocketAddr,
}

fn connect(lab: &Lab, rule: Rule) -> Result<Connection> {
    let listener = tcp::listen(lab.servers(), rule.server())?;
    let client = tcp::connect(lab.client(), rule.service())?;
    let (server, seen_by_server) = tcp::accept(&listener)?;
    Ok(Connection {
        client,
        server,
        seen_by_server,
    })
}

const fn on_eth0(port: u16) -> SocketAddr {
    SocketAddr::new(ROUTER_ETH0.address, port)
}

const fn on_any(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port)
}

// Redirection.

#[test]
fn http_reaches_the_server_from_the_reserved_address() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let _server = HttpServer::start(lab.servers(), HTTP.server())?;

    let seen = http::seen_by_the_server(lab.client(), HTTP.service())?;
    assert_eq!(seen, ROUTER_NET1.address);
    let body = http::get(lab.client(), HTTP.service(), "bytes/1000000")?;
    assert_eq!(body.len(), 1_000_000);
    Ok(())
}

#[test]
fn raw_tcp_is_redirected_both_ways() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;

    let Connection {
        client,
        server,
        seen_by_server,
    } = connect(&lab, TLS)?;
    assert_eq!(seen_by_server.ip(), ROUTER_NET1.address);
    assert_eq!(client.peer_addr()?, TLS.service());
    for round in 0..100_u8 {
        tcp::send(&client, &server, &[round; 700])?;
        tcp::send(&server, &client, &[!round; 1_300])?;
    }
    Ok(())
}

#[test]
fn udp_is_redirected_both_ways() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;

    let server = udp::bind(lab.servers(), DATAGRAM.server())?;
    let client = udp::connect(lab.client(), DATAGRAM.service())?;
    for length in [0, 1, 2, 511, 1_472] {
        let seen = udp::exchange(&client, &server, &vec![b'q'; length], &vec![b'a'; length])?;
        assert_eq!(seen.ip(), ROUTER_NET1.address);
    }
    Ok(())
}

#[test]
fn the_server_side_sees_the_reserved_address_and_the_mac_of_net1() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let net1 = lab.router().interface("net1")?;
    let gateway = lab.gateway().interface("lan0")?;
    let capture = Capture::on(lab.gateway(), "node0")?;

    let Connection {
        client,
        server,
        seen_by_server,
    } = connect(&lab, HTTP)?;
    tcp::send(&client, &server, b"question")?;
    tcp::send(&server, &client, b"answer")?;

    let towards_server = |packet: &Packet| packet.destination == HTTP.server().ip();
    let frames = capture.frames()?;
    let sent: Vec<_> = frames
        .iter()
        .filter_map(Frame::packet)
        .filter(towards_server)
        .collect();
    ensure!(
        sent.len() >= 3,
        "captured {} packets of a whole connection",
        sent.len()
    );
    for packet in sent {
        assert_eq!(packet.source, ROUTER_NET1.address);
        assert_eq!(packet.source_mac, net1.mac);
        assert_eq!(packet.destination_mac, gateway.mac);
        assert_eq!(
            packet.transport,
            Transport::Tcp {
                source: seen_by_server.port(),
                destination: HTTP.target_port
            }
        );
    }
    Ok(())
}

#[test]
fn no_frame_leaves_ext0_with_an_address_of_the_cluster() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let capture = Capture::on(lab.node(), "ext0")?;

    for rule in [HTTP, TLS] {
        let Connection { client, server, .. } = connect(&lab, rule)?;
        tcp::send(&client, &server, b"question")?;
        tcp::send(&server, &client, b"answer")?;
        tcp::reset(client)?;
        tcp::expect_reset(&server)?;
    }
    let server = udp::bind(lab.servers(), DATAGRAM.server())?;
    let client = udp::connect(lab.client(), DATAGRAM.service())?;
    udp::exchange(&client, &server, b"question", b"answer")?;
    let _ = tcp::connect(lab.client(), on_eth0(UNDEFINED_PORT));
    udp::connect(lab.client(), on_eth0(UNDEFINED_PORT))?.send(b"undefined")?;
    udp::connect(lab.client(), on_eth0(HTTP.port))?.send(b"only TCP has this port")?;
    icmp::ping(lab.client(), ROUTER_ETH0.address, PATIENCE)?;

    let packets: Vec<_> = capture.frames()?.iter().filter_map(Frame::packet).collect();
    ensure!(
        packets
            .iter()
            .any(|packet| packet.source == ROUTER_NET1.address),
        "nothing captured"
    );
    for packet in packets {
        assert!(!CLUSTER.contains(packet.source), "{packet:?}");
        assert!(!CLUSTER.contains(packet.destination), "{packet:?}");
    }
    Ok(())
}

// Much at once.

#[test]
fn a_hundred_megabytes_arrive_unchanged_each_way() -> Result<()> {
    const BYTES: u64 = 100_000_000;
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;

    let upload = connect(&lab, HTTP)?;
    compare(upload.client, upload.server, BYTES, 1).context("uploading")?;
    let download = connect(&lab, HTTP)?;
    compare(download.server, download.client, BYTES, 2).context("downloading")?;

    let both = connect(&lab, TLS)?;
    let (client, server) = (both.client.try_clone()?, both.server.try_clone()?);
    let upload = thread::spawn(move || compare(both.client, both.server, BYTES / 10, 3));
    compare(server, client, BYTES / 10, 4).context("downloading while uploading")?;
    upload
        .join()
        .expect("no panic")
        .context("uploading while downloading")
}

/// Sends a stream and its end one way and compares what arrives.
fn compare(from: TcpStream, to: TcpStream, bytes: u64, seed: u8) -> Result<()> {
    let receiver = thread::spawn(move || bulk::receive(to));
    let sent = bulk::send(&from, bytes, seed)?;
    from.shutdown(Shutdown::Write)?;
    let received = receiver.join().expect("no panic")?;
    ensure!(sent == received, "sent {sent:?}, received {received:?}");
    Ok(())
}

#[test]
fn a_thousand_connections_exchange_data_while_all_are_open() -> Result<()> {
    const CONNECTIONS: u32 = 1_000;
    skip_unless_lab_works!();
    raise_open_file_limit()?;
    let lab = Lab::new()?;
    let _router = start(&lab)?;

    let listener = tcp::listen(lab.servers(), HTTP.server())?;
    let mut connections = Vec::new();
    let mut seen = HashSet::new();
    for number in 0..CONNECTIONS {
        let client = tcp::connect(lab.client(), HTTP.service())
            .with_context(|| format!("connection {number}"))?;
        let (server, peer) = tcp::accept(&listener)?;
        seen.insert(peer);
        connections.push((client, server));
    }
    assert_eq!(
        seen.len(),
        connections.len(),
        "each has a port of its own at the server"
    );

    for round in 0..3_u32 {
        for (number, (mut client, _)) in (0..CONNECTIONS).zip(pairs(&connections)) {
            client.write_all(&question(round, number))?;
        }
        for (number, (client, server)) in (0..CONNECTIONS).zip(pairs(&connections)) {
            tcp::expect(server, &question(round, number))
                .with_context(|| format!("round {round} at the server of connection {number}"))?;
            tcp::send(server, client, &question(!round, number))
                .with_context(|| format!("round {round} of connection {number}"))?;
        }
    }
    Ok(())
}

fn pairs(connections: &[(TcpStream, TcpStream)]) -> impl Iterator<Item = (&TcpStream, &TcpStream)> {
    connections.iter().map(|(client, server)| (client, server))
}

fn question(round: u32, number: u32) -> Vec<u8> {
    format!("round {round} of connection {number}").into_bytes()
}

#[test]
fn ten_clients_with_one_source_port_each_get_their_own_answer_over_tcp() -> Result<()> {
    const SOURCE_PORT: u16 = 40_000;
    skip_unless_lab_works!();
    let lab = Lab::builder().clients(10).build()?;
    let _router = start(&lab)?;

    let listener = tcp::listen(lab.servers(), HTTP.server())?;
    let from_the_port = tcp::Connector::default().source(on_any(SOURCE_PORT));
    let clients = thread::scope(|scope| {
        let connecting: Vec<_> = lab
            .clients()
            .iter()
            .map(|client| scope.spawn(|| from_the_port.connect(client, HTTP.service())))
            .collect();
        connecting
            .into_iter()
            .map(|client| client.join().expect("no panic"))
            .collect::<Result<Vec<_>>>()
    })?;
    for (index, mut client) in clients.iter().enumerate() {
        assert_eq!(client.local_addr()?.port(), SOURCE_PORT);
        client.write_all(&[u8::try_from(index)?])?;
    }

    let mut seen = HashSet::new();
    let mut servers = Vec::new();
    for _ in &clients {
        let (server, peer) = tcp::accept(&listener)?;
        assert_eq!(peer.ip(), ROUTER_NET1.address);
        seen.insert(peer);
        servers.push(server);
    }
    assert_eq!(
        seen.len(),
        clients.len(),
        "each has a port of its own at the server"
    );
    for server in &servers {
        let index = tcp::receive::<1>(server)?[0];
        tcp::send(
            server,
            &clients[usize::from(index)],
            format!("answer {index}").as_bytes(),
        )?;
    }
    Ok(())
}

#[test]
fn ten_clients_with_one_source_port_each_get_their_own_answer_over_udp() -> Result<()> {
    const SOURCE_PORT: u16 = 40_000;
    skip_unless_lab_works!();
    let lab = Lab::builder().clients(10).build()?;
    let _router = start(&lab)?;

    let server = udp::bind(lab.servers(), DATAGRAM.server())?;
    let clients = lab
        .clients()
        .iter()
        .map(|client| udp::connect_from(client, SOURCE_PORT, DATAGRAM.service()))
        .collect::<Result<Vec<_>>>()?;
    for (index, client) in clients.iter().enumerate() {
        client.send(&[u8::try_from(index)?])?;
    }
    let mut seen = HashSet::new();
    for _ in &clients {
        let (question, peer) = udp::receive(&server)?;
        assert_eq!(peer.ip(), ROUTER_NET1.address);
        seen.insert(peer);
        server.send_to(&question, peer)?;
    }
    assert_eq!(
        seen.len(),
        clients.len(),
        "each has a port of its own at the server"
    );
    for (index, client) in clients.iter().enumerate() {
        assert_eq!(
            udp::receive(client)?.0,
            [u8::try_from(index)?],
            "client {index}"
        );
    }
    Ok(())
}

// The ends of connections.

#[test]
fn a_client_may_close_first() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let Connection { client, server, .. } = connect(&lab, HTTP)?;
    closes_first(&client, &server)
}

#[test]
fn a_server_may_close_first() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let Connection { client, server, .. } = connect(&lab, HTTP)?;
    closes_first(&server, &client)
}

/// The other end still sends after the first has closed its side, and then closes too.
fn closes_first(first: &TcpStream, second: &TcpStream) -> Result<()> {
    tcp::send(first, second, b"all that I have to say")?;
    first.shutdown(Shutdown::Write)?;
    tcp::expect_end(second)?;
    for _ in 0..10 {
        tcp::send(second, first, &[b'.'; 5_000]).context("on the half-closed connection")?;
    }
    second.shutdown(Shutdown::Write)?;
    tcp::expect_end(first)
}

#[test]
fn a_reset_by_the_client_reaches_the_server() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let Connection { client, server, .. } = connect(&lab, HTTP)?;
    tcp::send(&client, &server, b"goodbye")?;
    tcp::reset(client)?;
    tcp::expect_reset(&server)
}

#[test]
fn a_reset_by_the_server_reaches_the_client() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let Connection { client, server, .. } = connect(&lab, HTTP)?;
    tcp::send(&client, &server, b"hello")?;
    tcp::reset(server)?;
    tcp::expect_reset(&client)
}

#[test]
fn a_refusal_by_the_server_reaches_the_client() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let at_server = Capture::on(lab.servers(), "uplink0")?;

    expect_refusal(lab.client(), HTTP.service())?;
    at_server.wait_for("a refusal by the server itself", PATIENCE, |packet| {
        packet.source == HTTP.server().ip() && packet.destination == ROUTER_NET1.address
    })?;
    Ok(())
}

#[test]
fn a_source_port_can_be_used_again_after_a_close_and_after_a_reset() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let listener = tcp::listen(lab.servers(), HTTP.server())?;
    let from_one_port = tcp::Connector::default().source(on_any(40_000));
    for round in 0..6_u8 {
        let client = from_one_port
            .connect(lab.client(), HTTP.service())
            .with_context(|| format!("round {round}"))?;
        let (server, _) = tcp::accept(&listener)?;
        tcp::send(&client, &server, &[round])?;
        if round % 2 == 0 {
            // The server's end waits in TIME_WAIT, so that the client's is free.
            closes_first(&server, &client)?;
        } else {
            tcp::reset(client)?;
            tcp::expect_reset(&server)?;
        }
    }
    Ok(())
}

// Packets that are rare.

#[test]
fn a_datagram_without_checksum_stays_without_checksum() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let at_server = Capture::on(lab.servers(), "uplink0")?;
    let at_client = Capture::on(lab.client(), "eth0")?;

    let server = udp::bind(lab.servers(), DATAGRAM.server())?;
    let client = udp::connect(lab.client(), DATAGRAM.service())?;
    socket::send_without_checksum(&server)?;
    socket::send_without_checksum(&client)?;
    let seen = udp::exchange(&client, &server, b"no checksum", b"none either")?;

    let transport = |source, destination| Transport::Udp {
        source,
        destination,
        checksum: 0,
    };
    let question = transport(seen.port(), DATAGRAM.target_port);
    at_server.wait_for("the question, its checksum 0", PATIENCE, |packet| {
        packet.transport == question
    })?;
    let answer = transport(DATAGRAM.port, client.local_addr()?.port());
    at_client.wait_for("the answer, its checksum 0", PATIENCE, |packet| {
        packet.transport == answer
    })?;
    Ok(())
}

#[test]
fn ip_options_pass_both_ways() -> Result<()> {
    // Record route (RFC 791, section 3.1): type 7, length 15, the first of three
    // slots is the next; then the end of the list. A server answers with the
    // same option.
    const RECORD_ROUTE: [u8; 16] = [7, 15, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let at_server = Capture::on(lab.servers(), "uplink0")?;
    let at_client = Capture::on(lab.client(), "eth0")?;

    let listener = tcp::listen(lab.servers(), HTTP.server())?;
    let client = tcp::Connector::default()
        .ip_options(&RECORD_ROUTE)
        .connect(lab.client(), HTTP.service())?;
    let (server, _) = tcp::accept(&listener)?;
    for _ in 0..10 {
        tcp::send(&client, &server, &[b'q'; 3_000])?;
        tcp::send(&server, &client, &[b'a'; 3_000])?;
    }

    let records = |packet: &Packet| packet.ip_options.starts_with(&RECORD_ROUTE[..2]);
    at_server.wait_for("a question that records its route", PATIENCE, |packet| {
        packet.source == ROUTER_NET1.address && records(packet)
    })?;
    at_client.wait_for("an answer that records its route", PATIENCE, |packet| {
        packet.source == ROUTER_ETH0.address && records(packet)
    })?;
    Ok(())
}

// What is the pod's own.

#[test]
fn an_undefined_port_is_refused_by_the_pod() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;

    expect_refusal(lab.client(), on_eth0(UNDEFINED_PORT))?;
    expect_refusal(lab.client(), on_eth0(DATAGRAM.port)).context("a port that only UDP has")?;

    let client = udp::connect(lab.client(), on_eth0(UNDEFINED_PORT))?;
    client.send(b"anybody?")?;
    let error = udp::receive(&client).expect_err("nobody listens there");
    assert_eq!(
        tcp::error_kind(&error),
        Some(io::ErrorKind::ConnectionRefused),
        "{error:#}"
    );
    Ok(())
}

fn expect_refusal(namespace: &Namespace, address: SocketAddr) -> Result<()> {
    let Err(error) = tcp::connect(namespace, address) else {
        anyhow::bail!("{address}/tcp took a connection, expected a refusal");
    };
    let refused = tcp::error_kind(&error) == Some(io::ErrorKind::ConnectionRefused);
    if refused {
        Ok(())
    } else {
        Err(error.context("expected a refusal"))
    }
}

#[test]
fn a_listener_in_the_pod_is_reached_on_a_port_without_rule() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;

    let listener = tcp::listen(lab.router(), on_any(UNDEFINED_PORT))?;
    let client = tcp::connect(lab.client(), on_eth0(UNDEFINED_PORT))?;
    let (server, peer) = tcp::accept(&listener)?;
    assert_eq!(
        peer.ip(),
        addresses::client(0).address,
        "the pod sees the client itself"
    );
    tcp::send(&client, &server, b"question")?;
    tcp::send(&server, &client, b"answer")?;
    icmp::ping(lab.client(), ROUTER_ETH0.address, PATIENCE)?;
    Ok(())
}

#[test]
fn a_connection_of_the_pod_itself_leaves_by_net1() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;

    let listener = tcp::listen(lab.servers(), HTTP.server())?;
    let client = tcp::connect(lab.router(), HTTP.server())?;
    let (server, peer) = tcp::accept(&listener)?;
    assert_eq!(peer.ip(), ROUTER_NET1.address);
    tcp::send(&client, &server, b"question")?;
    tcp::send(&server, &client, b"answer")?;

    let server = udp::bind(lab.servers(), DATAGRAM.server())?;
    let client = udp::connect(lab.router(), DATAGRAM.server())?;
    let seen = udp::exchange(&client, &server, b"question", b"answer")?;
    assert_eq!(seen.ip(), ROUTER_NET1.address);
    Ok(())
}

#[test]
fn ip_forwarding_stays_off() -> Result<()> {
    skip_unless_lab_works!();
    skip_on_nftables!("the kernel's NAT needs IP forwarding");
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let _connection = connect(&lab, HTTP)?;
    for name in [
        "ip_forward",
        "conf.all.forwarding",
        "conf.eth0.forwarding",
        "conf.net1.forwarding",
    ] {
        assert_eq!(
            lab.router().sysctl(&format!("net.ipv4.{name}"))?,
            "0",
            "{name}"
        );
    }
    Ok(())
}

// The external network.

#[test]
fn the_external_network_gets_nothing_into_the_cluster() -> Result<()> {
    skip_unless_lab_works!();
    skip_on_nftables!("a kernel that forwards lets the external network into the cluster");
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let in_the_cluster = Capture::on(lab.node(), "router")?;
    let at_neighbour = Capture::on(lab.neighbour(), "eth0")?;

    let victim = |port| SocketAddr::new(addresses::client(0).address, port);
    let _listener = tcp::listen(lab.client(), victim(UNDEFINED_PORT))?;
    let _socket = udp::bind(lab.client(), victim(UNDEFINED_PORT))?;
    expect_silence(&lab, victim(UNDEFINED_PORT))?;

    expect_nothing_crossed(&lab, &in_the_cluster, &at_neighbour)
}

#[test]
fn the_external_network_gets_no_answer_from_the_address_of_eth0() -> Result<()> {
    skip_unless_lab_works!();
    skip_on_nftables!("Linux answers for any of its addresses on any interface");
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let in_the_cluster = Capture::on(lab.node(), "router")?;
    let at_neighbour = Capture::on(lab.neighbour(), "eth0")?;

    let _listener = tcp::listen(lab.router(), on_any(UNDEFINED_PORT))?;
    for port in [UNDEFINED_PORT, UNDEFINED_PORT + 1, HTTP.port, DATAGRAM.port] {
        expect_silence(&lab, on_eth0(port))?;
    }
    expect_nothing_crossed(&lab, &in_the_cluster, &at_neighbour)
}

/// Tries TCP, UDP and a ping from the neighbour and expects no answer of any kind.
fn expect_silence(lab: &Lab, address: SocketAddr) -> Result<()> {
    let datagrams = udp::connect(lab.neighbour(), address)?;
    datagrams.set_read_timeout(Some(Duration::from_millis(1)))?;
    datagrams.send(b"let me in")?;
    let ping = icmp::ping(lab.neighbour(), address.ip(), Duration::from_millis(50)).err();
    let kind = ping.as_ref().and_then(tcp::error_kind);
    ensure!(
        kind == Some(io::ErrorKind::TimedOut),
        "{} answered a ping: {ping:?}",
        address.ip()
    );
    let connecting = tcp::Connector::default().timeout(A_WHILE);
    let error = connecting.connect(lab.neighbour(), address).err();
    let kind = error.as_ref().and_then(tcp::error_kind);
    ensure!(
        kind == Some(io::ErrorKind::TimedOut),
        "{address}/tcp answered: {error:?}"
    );
    let error = udp::receive(&datagrams).err();
    let kind = error.as_ref().and_then(tcp::error_kind);
    ensure!(
        kind == Some(io::ErrorKind::WouldBlock),
        "{address}/udp answered: {error:?}"
    );
    Ok(())
}

/// Nothing of the neighbour was seen in the cluster, nothing of the cluster was
/// seen by the neighbour, and the captures that say so do see what there is.
fn expect_nothing_crossed(
    lab: &Lab,
    in_the_cluster: &Capture,
    at_neighbour: &Capture,
) -> Result<()> {
    let Connection { client, server, .. } = connect(lab, HTTP)?;
    tcp::send(&client, &server, b"question")?;
    in_the_cluster.wait_for("the client's own traffic", PATIENCE, |packet| {
        packet.source == addresses::client(0).address
    })?;
    at_neighbour.wait_for("the neighbour's attempts", PATIENCE, |packet| {
        packet.source == NEIGHBOUR.address && CLUSTER.contains(packet.destination)
    })?;
    for packet in in_the_cluster.frames()?.iter().filter_map(Frame::packet) {
        assert!(!packet.involves(NEIGHBOUR.address), "{packet:?}");
    }
    for packet in at_neighbour.frames()?.iter().filter_map(Frame::packet) {
        assert_ne!(packet.destination, NEIGHBOUR.address, "{packet:?}");
        assert!(!CLUSTER.contains(packet.source), "{packet:?}");
    }
    Ok(())
}

#[test]
fn a_server_reaches_no_client_by_guessing_ports() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let at_client = Capture::on(lab.client(), "eth0")?;

    let server = udp::bind(lab.servers(), DATAGRAM.server())?;
    let client = udp::connect(lab.client(), DATAGRAM.service())?;
    let seen = udp::exchange(&client, &server, b"question", b"answer")?;
    let other_port = udp::bind(lab.servers(), SocketAddr::new(DATAGRAM.server().ip(), 81))?;
    let other_server = udp::bind(lab.servers(), HTTP.server())?;
    for stranger in [&other_port, &other_server] {
        stranger.send_to(b"unasked for", seen)?;
    }
    for port in (1..100).filter_map(|distance| seen.port().checked_add(distance)) {
        server.send_to(b"unasked for", SocketAddr::new(seen.ip(), port))?;
    }
    udp::exchange(&client, &server, b"last question", b"last answer")?;

    let answers = at_client
        .frames()?
        .iter()
        .filter_map(Frame::packet)
        .filter(|packet| packet.destination == addresses::client(0).address)
        .filter(|packet| matches!(packet.transport, Transport::Udp { .. }))
        .count();
    assert_eq!(answers, 2, "only what the client asked for");
    Ok(())
}

// The end of the router.

#[test]
fn a_stopped_router_leaves_nothing_attached_and_no_program() -> Result<()> {
    skip_unless_lab_works!();
    skip_on_nftables!("no program is attached");
    let lab = Lab::new()?;
    let mut running = start(&lab)?;
    let router = running.0.take().context("no router was started")?;
    drop(connect(&lab, HTTP)?);
    let programs = programs_of(router.id())?;
    ensure!(
        !programs.is_empty(),
        "the running router holds no BPF program"
    );
    let before = attachments(&lab)?;
    ensure!(
        before.contains("eth0") && before.contains("net1"),
        "attached before: {before:?}"
    );

    let log = router.log();
    let status = router.stop()?;
    ensure!(status.success(), "after SIGTERM: {status}\n{log}");
    assert_eq!(attachments(&lab)?, "");
    // The kernel frees programs after a grace period.
    for _ in 0..200 {
        if loaded().is_disjoint(&programs) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(25));
    }
    anyhow::bail!("still loaded 5 s after the router ended: {programs:?}")
}

/// The IDs of the BPF programs that a process holds, by themselves or by a link
/// to them (the kernel's `bpf_prog_show_fdinfo` and `bpf_link_show_fdinfo`).
fn programs_of(process: u32) -> Result<HashSet<u32>> {
    let mut programs = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{process}/fdinfo"))? {
        for line in fs::read_to_string(entry?.path())?.lines() {
            if let Some(id) = line.strip_prefix("prog_id:") {
                programs.insert(id.trim().parse().with_context(|| line.to_owned())?);
            }
        }
    }
    Ok(programs)
}

fn loaded() -> HashSet<u32> {
    // A program that is freed while the list is read is one that is not loaded.
    loaded_programs()
        .filter_map(Result::ok)
        .map(|program| program.id())
        .collect()
}

/// What is attached to the router's interfaces, by TCX or to a clsact qdisc; a
/// line each, and nothing when there is nothing.
fn attachments(lab: &Lab) -> Result<String> {
    let mut found = String::new();
    for interface in ["eth0", "net1"] {
        for direction in [TcAttachType::Ingress, TcAttachType::Egress] {
            // A kernel before 6.6 knows no TCX, so that nothing is attached by it.
            let tcx = lab.router().run(|| {
                let query = SchedClassifier::query_tcx(interface, direction);
                Ok(query.map_or(0, |(_, programs)| programs.len()))
            })?;
            if tcx > 0 {
                writeln!(found, "{interface}: {tcx} programs by TCX, {direction:?}")?;
            }
        }
        let qdiscs = lab
            .router()
            .output("tc", ["qdisc", "show", "dev", interface])?;
        for qdisc in qdiscs.lines().filter(|qdisc| qdisc.contains("clsact")) {
            writeln!(found, "{interface}: {qdisc}")?;
        }
    }
    Ok(found)
}
