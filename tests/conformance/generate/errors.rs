//! ICMP errors: about flows, about unknown packets, and forged ones.

use super::{Writer, tcp, udp};
use crate::family::Family;
use crate::protocol::{ACK, PSH};
use crate::recipe::{Body, Damage, Extension, Recipe, Twist};
use crate::wire::Side;

/// IPv4's types, each with its number of codes (RFC 792, RFC 1812).
const V4: &[(u8, u8)] = &[(3, 16), (4, 1), (11, 2), (12, 3), (5, 4)];
/// IPv6's types, each with its number of codes (RFC 4443).
const V6: &[(u8, u8)] = &[(1, 7), (2, 1), (3, 2), (4, 3)];

/// Writes an error about a segment of this connection.
pub(super) fn about_tcp(writer: &mut Writer, connection: &tcp::Connection) {
    let side = writer.either_side();
    let body = connection.segment(side.other(), ACK | PSH, 64);
    let recipe = writer.recipe(body);
    about(writer, side, connection.flow, recipe);
}

/// Writes an error about a datagram. The error arrives on `side`.
pub(super) fn about_udp(writer: &mut Writer, side: Side, flow: usize) {
    let checksum = writer.chance(80);
    let recipe = writer.recipe(udp::body(64, checksum));
    about(writer, side, flow, recipe);
}

/// Writes an error about a packet. The error arrives on `side`, where the packet left.
pub(super) fn about(writer: &mut Writer, side: Side, flow: usize, mut about: Recipe) {
    let mut what = "icmp error";
    about.df = true;
    about.ttl = writer.rng.u8(1..);
    if writer.chance(15) {
        what = "icmp error about a packet with options";
        match writer.script.family {
            Family::V4 => about.options = vec![1, 1, 1, 0],
            Family::V6 => about.extensions = vec![Extension::DestinationOptions],
        }
    }
    if writer.chance(15) {
        what = "icmp error about another packet";
        about.twist = another(writer, side);
    }
    let quoted = match writer.rng.u8(..10) {
        0..5 => 1_000,
        5..8 => writer.script.family.header_len() + about.options.len() + 8,
        8 => {
            what = "icmp error about a short packet";
            writer.rng.usize(..60)
        }
        _ => writer.rng.usize(60..110),
    };
    let kinds = match writer.script.family {
        Family::V4 => V4,
        Family::V6 => V6,
    };
    let &(kind, codes) = writer.choose(kinds);
    let kind = [kind, writer.rng.u8(..codes)];
    let rest = rest(writer, kind);
    let mut recipe = writer.recipe(Body::Error {
        kind,
        rest,
        about: Box::new(about),
        quoted,
    });
    if side == Side::Outside && writer.chance(50) {
        let network = writer.network();
        // Any host on the path may report the error.
        recipe.twist.source = Some(*writer.choose(&[
            network.gateway.address,
            network.neighbour.address,
            network.servers_uplink.address,
        ]));
    }
    if writer.chance(4) {
        what = "icmp error with a wrong checksum";
        recipe
            .damage
            .push(Damage::Checksum(writer.rng.u16(1..0xffff)));
    }
    writer.send(side, flow, what, recipe);
}

/// The MTU of "fragmentation needed" and "packet too big", or the pointer of "parameter problem".
fn rest(writer: &mut Writer, kind: [u8; 2]) -> [u8; 4] {
    match (writer.script.family, kind) {
        (Family::V4, [3, 4]) => mtu(*writer.choose(&[1_300, 1_280, 576, 68, 0])),
        // The pod's own stack may keep a smaller MTU and report it later.
        (Family::V6, [2, _]) => mtu(*writer.choose(&[1_400, 1_432, 9_000])),
        (Family::V4, [12, _]) => [20, 0, 0, 0],
        (Family::V6, [4, _]) => [0, 0, 0, 40],
        _ => [0; 4],
    }
}

const fn mtu(bytes: u16) -> [u8; 4] {
    let [high, low] = bytes.to_be_bytes();
    [0, 0, high, low]
}

/// The ends of a packet that does not belong to this flow.
fn another(writer: &mut Writer, side: Side) -> Twist {
    let network = writer.network();
    let mut twist = Twist::default();
    match writer.rng.u8(..5) {
        0 => twist.source_port = 3,
        1 => twist.destination_port = 3,
        2 => twist.destination = Some(network.tls_server.address),
        3 if side == Side::Outside => twist.source = Some(network.client(0).address),
        3 => twist.source = Some(network.neighbour.address),
        _ => twist.source = Some(network.router_net1.address),
    }
    twist
}
