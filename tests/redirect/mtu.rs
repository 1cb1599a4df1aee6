//! Interfaces with different MTUs.

use std::io;
use std::net::UdpSocket;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use egress_tests::icmp::{self, IcmpError, Kind};
use egress_tests::{
    Capture, Connection, Lab, Network, PATIENCE, bulk, ethtool, eventually, nftables, requirements,
    socket, udp,
};
use nix::libc;

use crate::running::start;

const NARROW: u16 = 1_400;

over_each_family! {
    a_narrow_cluster_carries_transfers_without_icmp,
    a_narrow_external_network_carries_transfers_without_icmp,
    a_client_learns_that_its_datagrams_are_too_long_for_the_way_out,
    a_server_learns_that_its_datagrams_are_too_long_for_the_cluster,
    the_error_is_intact_where_eth0_computes_no_checksums,
    an_open_connection_lives_through_a_narrower_way_to_the_server,
    an_open_connection_lives_through_a_narrower_way_to_the_client,
    an_mtu_that_changes_is_followed,
    datagrams_of_many_fragments_find_the_way,
}

fn a_narrow_cluster_carries_transfers_without_icmp(network: &Network) -> Result<()> {
    skip_on_nftables!("it clamps no segment size");
    let lab = Lab::new()?;
    narrow_cluster(&lab)?;
    transfer_without_icmp(&lab, network)
}

fn a_narrow_external_network_carries_transfers_without_icmp(network: &Network) -> Result<()> {
    skip_on_nftables!("it clamps no segment size");
    let lab = Lab::new()?;
    narrow_external_network(&lab)?;
    transfer_without_icmp(&lab, network)
}

fn transfer_without_icmp(lab: &Lab, network: &Network) -> Result<()> {
    for host in [lab.client(), lab.servers()] {
        if let Err(reason) = nftables::lose_icmp_errors(host) {
            let test = egress_tests::function_name!();
            requirements::skipped(test, &format!("needs nftables: {reason:#}"));
            return Ok(());
        }
    }
    let _router = start(lab)?;
    transfer_both_ways(lab, network)
}

/// Transfers data across the step to [`NARROW`] on connections whose handshake clamps the MSS.
pub fn transfer_both_ways(lab: &Lab, network: &Network) -> Result<()> {
    const BYTES: u64 = 10_000_000;
    let offered = Offered::in_opening(lab, network)?;
    let expected = segment_size(network, NARROW);
    assert_eq!((offered.to_server, offered.to_client), (expected, expected));

    let upload = offered.connection;
    bulk::compare(upload.client, upload.server, BYTES, 1).context("uploading")?;
    let download = Connection::open(lab, network.http())?;
    bulk::compare(download.server, download.client, BYTES, 2).context("downloading")
}

fn a_client_learns_that_its_datagrams_are_too_long_for_the_way_out(
    network: &Network,
) -> Result<()> {
    let lab = Lab::new()?;
    narrow_external_network(&lab)?;
    let _router = start(&lab)?;
    let server = udp::bind(lab.servers(), network.datagram().server())?;
    let client = udp::connect(lab.client(), network.datagram().service())?;
    find_path_mtu(network, &client)?;

    udp::exchange(&client, &server, &longest(network, NARROW), b"answer")?;
    Ok(())
}

fn a_server_learns_that_its_datagrams_are_too_long_for_the_cluster(
    network: &Network,
) -> Result<()> {
    let lab = Lab::new()?;
    narrow_cluster(&lab)?;
    let _router = start(&lab)?;
    let server = udp::bind(lab.servers(), network.datagram().server())?;
    let client = udp::connect(lab.client(), network.datagram().service())?;
    let seen = udp::exchange(&client, &server, b"question", b"answer")?;
    lab.servers().run(|| Ok(server.connect(seen)?))?;
    find_path_mtu(network, &server)?;

    let answer = longest(network, NARROW);
    server.send(&answer)?;
    ensure!(udp::receive(&client)?.0 == answer, "another answer arrived");
    Ok(())
}

fn the_error_is_intact_where_eth0_computes_no_checksums(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    narrow_external_network(&lab)?;
    if let Err(reason) = ethtool::finish_checksums_in_software(lab.router(), "eth0") {
        let test = egress_tests::function_name!();
        requirements::skipped(test, &format!("needs ethtool: {reason:#}"));
        return Ok(());
    }
    let _router = start(&lab)?;
    let at_client = Capture::on(lab.client(), "eth0")?;
    let client = udp::connect(lab.client(), network.datagram().service())?;
    find_path_mtu(network, &client)?;

    let expected = IcmpError {
        kind: Kind::PacketTooBig,
        source: client.local_addr()?,
        destination: network.datagram().service(),
    };
    at_client.wait_for("the error, its checksum right", PATIENCE, |packet| {
        packet.source == network.router_eth0.address
            && IcmpError::of(packet) == Some(expected)
            && icmp::is_intact(packet)
    })?;
    Ok(())
}

// The segments are as long as the handshake allowed, and leave the host as segmentation-offload packets.

fn an_open_connection_lives_through_a_narrower_way_to_the_server(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let connection = Connection::open(&lab, network.http())?;
    connection.exchange()?;
    narrow_external_network(&lab)?;
    bulk::compare(connection.client, connection.server, 2_000_000, 1)
}

fn an_open_connection_lives_through_a_narrower_way_to_the_client(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let connection = Connection::open(&lab, network.http())?;
    connection.exchange()?;
    narrow_cluster(&lab)?;
    bulk::compare(connection.server, connection.client, 2_000_000, 1)
}

fn an_mtu_that_changes_is_followed(network: &Network) -> Result<()> {
    const NARROWER: u16 = 1_300;
    skip_on_nftables!("it clamps no segment size");
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let offered = Offered::in_opening(&lab, network)?;
    assert_eq!(offered.to_server, segment_size(network, 1_500));

    lab.router().ip([format!("link set net1 mtu {NARROWER}")])?;
    let expected = segment_size(network, NARROWER);
    eventually("the handshake offers the new segment size", || {
        let offered = Offered::in_opening(&lab, network)?;
        let sizes = (offered.to_server, offered.to_client);
        Ok((sizes == (expected, expected)).then_some(()))
    })
}

fn datagrams_of_many_fragments_find_the_way(network: &Network) -> Result<()> {
    for narrow in [narrow_cluster, narrow_external_network] {
        let lab = Lab::new()?;
        narrow(&lab)?;
        let _router = start(&lab)?;
        exchange_long_datagrams(&lab, network)?;
    }
    Ok(())
}

fn exchange_long_datagrams(lab: &Lab, network: &Network) -> Result<()> {
    const MESSAGE: [u8; 3_000] = [b'.'; 3_000];
    let server = udp::bind(lab.servers(), network.datagram().server())?;
    let client = udp::connect(lab.client(), network.datagram().service())?;
    exchange_by_attempts(&client, &server, &MESSAGE, &MESSAGE)
}

/// Repeats a question until it is answered.
///
/// The first question and the first answer longer than the path MTU are lost, because no host knows the path MTU yet.
/// The ICMP error about each loss may end one more attempt.
pub fn exchange_by_attempts(
    client: &UdpSocket,
    server: &UdpSocket,
    question: &[u8],
    answer: &[u8],
) -> Result<()> {
    const ATTEMPTS: usize = 6;
    const WAIT: Duration = Duration::from_secs(1);
    server.set_read_timeout(Some(WAIT))?;
    client.set_read_timeout(Some(WAIT))?;
    let attempt = || udp::exchange(client, server, question, answer);
    let arrived = (1..ATTEMPTS).any(|_| attempt().is_ok());
    if !arrived {
        attempt().context("the last attempt")?;
    }
    Ok(())
}

/// Makes the cluster's MTU smaller than that of the external network.
pub fn narrow_cluster(lab: &Lab) -> Result<()> {
    let narrow = |interface: &str| format!("link set {interface} mtu {NARROW}");
    lab.client().ip([narrow("eth0")])?;
    lab.router().ip([narrow("eth0")])?;
    lab.node().ip([narrow("client0"), narrow("router")])
}

fn narrow_external_network(lab: &Lab) -> Result<()> {
    let narrow = |interface: &str| format!("link set {interface} mtu {NARROW}");
    lab.router().ip([narrow("net1")])?;
    lab.gateway().ip([narrow("lan0")])
}

/// The TCP payload that fits into a packet of `mtu` bytes without options.
fn segment_size(network: &Network, mtu: u16) -> u16 {
    mtu - ip_header(network) - 20
}

/// The longest datagram that fits into a packet of `mtu` bytes.
fn longest(network: &Network, mtu: u16) -> Vec<u8> {
    vec![b'.'; usize::from(mtu - ip_header(network) - 8)]
}

fn ip_header(network: &Network) -> u16 {
    if network.cluster.address.is_ipv4() {
        20
    } else {
        40
    }
}

/// A new connection and the segment sizes that its handshake offered.
struct Offered {
    connection: Connection,
    to_server: u16,
    to_client: u16,
}

impl Offered {
    fn in_opening(lab: &Lab, network: &Network) -> Result<Self> {
        let at_server = Capture::on(lab.servers(), "uplink0")?;
        let at_client = Capture::on(lab.client(), "eth0")?;
        let connection = Connection::open(lab, network.http())?;
        let offered = |capture: &Capture, destination| {
            let frame = capture.wait_for("a segment size", PATIENCE, |packet| {
                packet.destination == destination && packet.segment_size().is_some()
            })?;
            frame
                .packet()
                .and_then(|packet| packet.segment_size())
                .context("the frame offers no segment size")
        };
        Ok(Self {
            connection,
            to_server: offered(&at_server, network.http().server().ip())?,
            to_client: offered(&at_client, network.client(0).address)?,
        })
    }
}

/// Sends a datagram that exceeds the path MTU, waits for the error about it, and checks that the host then knows the
/// path MTU and refuses to send such a datagram again.
fn find_path_mtu(network: &Network, socket: &UdpSocket) -> Result<()> {
    let too_long = longest(network, 1_500);
    let is_refusal = |error: &io::Error| error.raw_os_error() == Some(libc::EMSGSIZE);
    socket::forbid_fragments(socket)?;
    socket
        .send(&too_long)
        .context("sending the first datagram")?;

    let error = eventually("the error arrives", || Ok(socket.take_error()?))?;
    ensure!(is_refusal(&error), "the error is {error}");
    assert_eq!(socket::path_mtu(socket)?, u32::from(NARROW));
    let second = socket.send(&too_long);
    ensure!(
        second.as_ref().is_err_and(is_refusal),
        "the second attempt: {second:?}"
    );
    Ok(())
}
