//! Fragmented packets.

use super::{Writer, sctp, tcp, udp};
use crate::family::Family;
use crate::protocol::ACK;
use crate::recipe::{Body, Piece, Recipe};
use crate::script::Service;
use crate::wire::Side;

/// A flow, and the bodies that its client and its server send in fragments.
struct Sender {
    flow: usize,
    bodies: [Body; 2],
}

/// Writes a flow with fragmented packets.
pub(super) fn write(writer: &mut Writer) {
    writer.script.kind = "fragments";
    let sender = match writer.rng.u8(..10) {
        0..6 => datagrams(writer),
        6..8 => segments(writer),
        8 => association(writer),
        _ => echo(writer),
    };
    for ordinal in 0..=writer.rng.u16(..3) {
        let (side, body) = if writer.chance(70) {
            (Side::Cluster, &sender.bodies[0])
        } else {
            (Side::Outside, &sender.bodies[1])
        };
        let mut recipe = writer.recipe(body.clone());
        recipe.df = false;
        recipe.ttl = 64;
        recipe.id = ordinal;
        let what = cut(writer, &mut recipe, body);
        writer.send(side, sender.flow, what, recipe);
    }
}

fn datagrams(writer: &mut Writer) -> Sender {
    let service = writer.udp_service();
    let flow = writer.flow(service);
    let checksum = writer.chance(80);
    if writer.chance(60) {
        let recipe = writer.recipe(udp::body(10, checksum));
        writer.send(Side::Cluster, flow, "whole packet", recipe);
    }
    let length = writer.rng.usize(1_400..6_000);
    let body = udp::body(length, checksum);
    Sender {
        flow,
        bodies: [body.clone(), body],
    }
}

fn segments(writer: &mut Writer) -> Sender {
    let service = writer.tcp_service();
    let flow = writer.flow(service);
    let mut connection = tcp::Connection::new(writer, flow);
    connection.handshake(writer);
    Sender {
        flow,
        bodies: Side::BOTH.map(|side| connection.segment(side, ACK, 3_000)),
    }
}

fn association(writer: &mut Writer) -> Sender {
    let service = Service::Rule(writer.network().association());
    let association = sctp::Association::new(writer, service);
    association.handshake(writer);
    Sender {
        flow: association.flow,
        bodies: Side::BOTH.map(|side| association.data(side, 2_000)),
    }
}

fn echo(writer: &mut Writer) -> Sender {
    let flow = writer.flow(Service::Echo);
    let kinds = match writer.script.family {
        Family::V4 => [8, 0],
        Family::V6 => [128, 129],
    };
    let bodies = kinds.map(|kind| Body::Echo {
        kind: [kind, 0],
        sequence: 1,
        length: 2_500,
    });
    Sender { flow, bodies }
}

/// Cuts a packet and returns a description of the cut.
fn cut(writer: &mut Writer, recipe: &mut Recipe, body: &Body) -> &'static str {
    let total = match body {
        Body::Tcp { length, .. } => 20 + usize::from(*length),
        Body::Udp { payload, .. } => 8 + payload.len(),
        Body::Sctp { chunks, .. } => 12 + chunks.len(),
        Body::Echo { length, .. } => 8 + usize::from(*length),
        _ => 0,
    };
    let step = *writer.choose(&[1_304, 1_000, 512, 800]);
    let mut pieces: Vec<_> = (0..total)
        .step_by(step)
        .map(|start| Piece {
            start,
            end: (start + step).min(total),
            more: start + step < total,
        })
        .collect();
    let what = match writer.rng.u8(..20) {
        0..10 => "fragments in order",
        10 | 11 => {
            pieces[1..].reverse();
            "fragments, the first one first"
        }
        12 | 13 => {
            pieces.reverse();
            "fragments in reverse"
        }
        14 => {
            pieces.pop();
            "fragments without the last"
        }
        15 => {
            pieces.remove(0);
            "fragments without the first"
        }
        16 => {
            pieces.insert(1, pieces[0]);
            "fragments, one twice"
        }
        17 => {
            pieces[1].start -= 8;
            "overlapping fragments"
        }
        18 => {
            pieces[1].start = 8;
            pieces[1].end = 80;
            "fragments over the header"
        }
        _ => {
            pieces[0].end = 8;
            "a tiny first fragment"
        }
    };
    recipe.fragments = pieces;
    what
}
