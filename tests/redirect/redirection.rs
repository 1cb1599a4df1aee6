//! What a rule promises: clients reach its server, from the reserved address.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use egress_tests::addresses::{NETWORKS, UNDEFINED_PORT, V4};
use egress_tests::frame::{Frame, Packet, Transport};
use egress_tests::http::{self, HttpServer};
use egress_tests::{
    Capture, Connection, Lab, Network, PATIENCE, icmp, router, skip_unless_lab_works, tcp, udp,
};

use crate::running::start;

over_each_family! {
    http_reaches_the_server_from_the_reserved_address,
    raw_tcp_is_redirected_both_ways,
    udp_is_redirected_both_ways,
    the_server_side_sees_the_reserved_address_and_the_mac_of_net1,
    no_frame_leaves_ext0_with_an_address_of_the_cluster,
}

fn http_reaches_the_server_from_the_reserved_address(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let _server = HttpServer::start(lab.servers(), network.http().server())?;

    let seen = http::seen_by_the_server(lab.client(), network.http().service())?;
    assert_eq!(seen, network.router_net1.address);
    let body = http::get(lab.client(), network.http().service(), "bytes/1000000")?;
    assert_eq!(body.len(), 1_000_000);
    Ok(())
}

fn raw_tcp_is_redirected_both_ways(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;

    let Connection {
        client,
        server,
        seen_by_server,
    } = Connection::open(&lab, network.tls())?;
    assert_eq!(seen_by_server.ip(), network.router_net1.address);
    assert_eq!(client.peer_addr()?, network.tls().service());
    for round in 0..100_u8 {
        tcp::send(&client, &server, &[round; 700])?;
        tcp::send(&server, &client, &[!round; 1_300])?;
    }
    Ok(())
}

fn udp_is_redirected_both_ways(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;

    let server = udp::bind(lab.servers(), network.datagram().server())?;
    let client = udp::connect(lab.client(), network.datagram().service())?;
    // The last length is the largest that needs no fragmentation in either family.
    for length in [0, 1, 2, 511, 1_452] {
        let seen = udp::exchange(&client, &server, &vec![b'q'; length], &vec![b'a'; length])?;
        assert_eq!(seen.ip(), network.router_net1.address);
    }
    Ok(())
}

fn the_server_side_sees_the_reserved_address_and_the_mac_of_net1(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let net1 = lab.router().interface("net1")?;
    let gateway = lab.gateway().interface("lan0")?;
    let capture = Capture::on(lab.gateway(), "node0")?;

    let connection = Connection::open(&lab, network.http())?;
    connection.exchange()?;

    let towards_server = |packet: &Packet| packet.destination == network.http().server().ip();
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
        assert_eq!(packet.source, network.router_net1.address);
        assert_eq!(packet.source_mac, net1.mac);
        assert_eq!(packet.destination_mac, gateway.mac);
        assert_eq!(
            packet.transport,
            Transport::Tcp {
                source: connection.seen_by_server.port(),
                destination: network.http().target_port
            }
        );
    }
    Ok(())
}

fn no_frame_leaves_ext0_with_an_address_of_the_cluster(network: &Network) -> Result<()> {
    let lab = Lab::new()?;
    let _router = start(&lab)?;
    let capture = Capture::on(lab.node(), "ext0")?;

    for rule in [network.http(), network.tls()] {
        let connection = Connection::open(&lab, rule)?;
        connection.exchange()?;
        let Connection { client, server, .. } = connection;
        tcp::reset(client)?;
        tcp::expect_reset(&server)?;
    }
    let server = udp::bind(lab.servers(), network.datagram().server())?;
    let client = udp::connect(lab.client(), network.datagram().service())?;
    udp::exchange(&client, &server, b"question", b"answer")?;
    let _ = tcp::connect(lab.client(), network.on_eth0(UNDEFINED_PORT));
    udp::connect(lab.client(), network.on_eth0(UNDEFINED_PORT))?.send(b"undefined")?;
    udp::connect(lab.client(), network.on_eth0(network.http().port))?
        .send(b"only TCP has this port")?;
    icmp::ping(lab.client(), network.router_eth0.address, PATIENCE)?;

    let packets: Vec<_> = capture.frames()?.iter().filter_map(Frame::packet).collect();
    ensure!(
        packets
            .iter()
            .any(|packet| packet.source == network.router_net1.address),
        "nothing captured"
    );
    for packet in packets {
        assert!(!network.cluster.contains(packet.source), "{packet:?}");
        assert!(!network.cluster.contains(packet.destination), "{packet:?}");
    }
    Ok(())
}

#[test]
fn the_examples_of_the_documentation_do_what_they_say() -> Result<()> {
    skip_unless_lab_works!();
    skip_on_nftables!("it reads no spec");
    let lab = Lab::new()?;
    {
        let _router = lab.start_router(&router::example_spec())?;
        for rule in [V4.http(), V4.tls()] {
            Connection::open(&lab, rule)?.exchange()?;
        }
    }
    let _router = lab.start_router(&router::dual_stack_example())?;
    for network in NETWORKS {
        Connection::open(&lab, network.http())?.exchange()?;
    }
    let undefined = V4.on_eth0(UNDEFINED_PORT);
    let fallback = SocketAddr::new(V4.fallback_server.address, UNDEFINED_PORT);
    Connection::open_to(&lab, undefined, fallback)?.exchange()
}
