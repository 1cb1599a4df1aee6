//! The router follows changes to the addresses of its interfaces.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use egress_tests::addresses::{DATAGRAM, ROUTER_NET1};
use egress_tests::{Lab, eventually, skip_unless_lab_works, udp};

use crate::lab::{Running, datagram_server, exchange_datagrams, outcome, send_to_net1, status};

/// Long enough for a packet to cross the lab.
const A_WHILE: Duration = Duration::from_millis(100);

/// Whether a datagram to `address` on a rule's port reaches the server.
fn is_redirected(lab: &Lab, address: IpAddr) -> Result<bool> {
    let server = datagram_server(lab)?;
    server.set_read_timeout(Some(A_WHILE))?;
    // An open flow survives the removal of the address, so each attempt uses a new flow.
    let client = udp::connect(lab.client(), SocketAddr::new(address, DATAGRAM.port))?;
    client.send(b"question")?;
    match udp::receive(&server) {
        Ok((_, peer)) => {
            ensure!(peer.ip() == ROUTER_NET1.address, "the server saw {peer}");
            Ok(true)
        }
        Err(error) => match egress_tests::tcp::error_kind(&error) {
            Some(std::io::ErrorKind::WouldBlock) => Ok(false),
            _ => Err(error),
        },
    }
}

#[test]
fn an_address_of_eth0_is_served_while_it_is_there() -> Result<()> {
    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 128, 0, 101));
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    let eth0 = lab.router().interface("eth0")?.mac;
    // With a permanent neighbour entry, only the dataplane can be why the address is not served, not ARP.
    lab.client().ip([format!(
        "neighbour replace {ADDRESS} lladdr {eth0} dev eth0 nud permanent"
    )])?;
    ensure!(
        !is_redirected(&lab, ADDRESS)?,
        "the address is served before it was added"
    );

    lab.router()
        .ip([format!("address add {ADDRESS}/24 dev eth0")])?;
    eventually("the added address is served", || {
        Ok(is_redirected(&lab, ADDRESS)?.then_some(()))
    })?;
    exchange_datagrams(&lab)?;

    lab.router()
        .ip([format!("address delete {ADDRESS}/24 dev eth0")])?;
    eventually("the removed address is not served", || {
        Ok((!is_redirected(&lab, ADDRESS)?).then_some(()))
    })?;
    ensure!(
        outcome(&status(&lab)?, "not_for_router")? > 0,
        "not counted"
    );
    exchange_datagrams(&lab)
}

#[test]
fn an_address_of_net1_is_the_pods_own_while_it_is_there() -> Result<()> {
    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 12, 98));
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let _router = Running::start(&lab, &[])?;
    // Sends packets until this outcome's counter has grown by one.
    let counted_as = |name: &str| {
        eventually(&format!("counted as {name}"), || {
            let before = outcome(&status(&lab)?, name)?;
            send_to_net1(&lab, ADDRESS)?;
            std::thread::sleep(A_WHILE / 2);
            Ok((outcome(&status(&lab)?, name)? > before).then_some(()))
        })
    };
    counted_as("not_for_egress")?;

    lab.router()
        .ip([format!("address add {ADDRESS}/24 dev net1")])?;
    counted_as("egress_own")?;
    let dropped = outcome(&status(&lab)?, "not_for_egress")?;
    counted_as("egress_own")?;
    assert_eq!(outcome(&status(&lab)?, "not_for_egress")?, dropped);
    exchange_datagrams(&lab)?;

    lab.router()
        .ip([format!("address delete {ADDRESS}/24 dev net1")])?;
    counted_as("not_for_egress")
}

#[test]
fn a_lost_reserved_address_is_logged() -> Result<()> {
    skip_unless_lab_works!();
    let lab = Lab::new()?;
    let router = Running::start(&lab, &[])?;
    lab.router()
        .ip([format!("address delete {ROUTER_NET1} dev net1")])?;
    router.wait_for_log(&["ERROR", "net1 has lost the reserved address 192.168.12.99"])
}
