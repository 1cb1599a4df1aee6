//! Unsolicited packets, and packets for other hosts.

use super::{Writer, errors, udp};
use crate::protocol::{ACK, RST, SYN};
use crate::recipe::{Body, Twist, data};
use crate::wire::Side;

/// Writes packets that belong to no flow, some of them similar to an existing flow.
pub(super) fn write(writer: &mut Writer) {
    writer.script.kind = "outside";
    let is_tcp = writer.rng.bool();
    let service = if is_tcp {
        writer.tcp_service()
    } else {
        writer.udp_service()
    };
    let flow = writer.flow(service);
    if writer.chance(50) {
        let body = if is_tcp {
            segment(SYN)
        } else {
            udp::body(9, true)
        };
        let recipe = writer.recipe(body);
        writer.send(Side::Cluster, flow, "opening", recipe);
    }
    for _ in 0..=writer.rng.u8(..4) {
        unasked(writer, flow, is_tcp);
    }
}

fn segment(flags: u8) -> Body {
    Body::Tcp {
        flags,
        seq: 5_000,
        ack: if flags & ACK == 0 { 0 } else { 6_000 },
        window: 0x7000,
        options: Vec::new(),
        length: 0,
    }
}

fn unasked(writer: &mut Writer, flow: usize, is_tcp: bool) {
    let body = match writer.rng.u8(..10) {
        0..8 if is_tcp => segment(*writer.choose(&[SYN, ACK, SYN | ACK, RST])),
        0..8 => udp::body(25, true),
        8 => {
            let protocol = *writer.choose(&[47, 50, 132, 200]);
            let length = writer.rng.usize(..80);
            Body::Other {
                protocol,
                bytes: data(length),
            }
        }
        _ => {
            let about = writer.recipe(udp::body(30, true));
            let side = writer.either_side();
            return errors::about(writer, side, flow, about);
        }
    };
    let mut recipe = writer.recipe(body);
    let network = writer.network();
    let mut twist = Twist::default();
    let (side, what) = match writer.rng.u8(..9) {
        0 => {
            twist.source_port = 1;
            (Side::Outside, "from another port of the server")
        }
        1 => {
            twist.source = Some(network.neighbour.address);
            (Side::Outside, "from another host")
        }
        2 => {
            twist.destination_port = 3;
            (Side::Outside, "to another nat port")
        }
        3 => {
            twist.destination = Some(network.router_eth0.address);
            (
                Side::Outside,
                "outside, to the cluster's address of the router",
            )
        }
        4 => {
            twist.destination = Some(network.client(0).address);
            (Side::Outside, "outside, to a client")
        }
        5 => {
            twist.destination = Some(network.gateway.address);
            (Side::Outside, "outside, to another host")
        }
        6 => {
            twist.destination = Some(network.http_server.address);
            (Side::Cluster, "cluster, to a server")
        }
        7 => {
            twist.destination = Some(network.router_net1.address);
            (Side::Cluster, "cluster, to the reserved address")
        }
        _ => {
            twist.destination = Some(network.client(3).address);
            (Side::Cluster, "cluster, to another client")
        }
    };
    recipe.twist = twist;
    writer.send(side, flow, what, recipe);
}
