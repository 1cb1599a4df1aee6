//! Echo, and other ICMP messages that are not errors.

use super::{Writer, errors};
use crate::family::Family;
use crate::recipe::{Body, Damage};
use crate::script::Service;
use crate::wire::Side;

pub(super) fn write(writer: &mut Writer) {
    writer.script.kind = "echo";
    let flow = writer.flow(Service::Echo);
    let (request, reply) = match writer.script.family {
        Family::V4 => ([8, 0], [0, 0]),
        Family::V6 => ([128, 0], [129, 0]),
    };
    for sequence in 1..2 + writer.rng.u16(..4) {
        let length = *writer.choose(&[0, 1, 56, 1_000]);
        message(
            writer,
            Side::Cluster,
            flow,
            request,
            sequence,
            length,
            "echo request",
        );
        if writer.chance(80) {
            message(
                writer,
                Side::Outside,
                flow,
                reply,
                sequence,
                length,
                "echo reply",
            );
        }
        if writer.chance(25) {
            odd(writer, flow, request, reply);
        }
        if writer.chance(20) {
            let side = writer.either_side();
            let kind = if side == Side::Outside {
                request
            } else {
                reply
            };
            let about = writer.recipe(Body::Echo {
                kind,
                sequence,
                length,
            });
            errors::about(writer, side, flow, about);
        }
    }
}

fn message(
    writer: &mut Writer,
    side: Side,
    flow: usize,
    kind: [u8; 2],
    sequence: u16,
    length: u16,
    what: &'static str,
) {
    let mut recipe = writer.recipe(Body::Echo {
        kind,
        sequence,
        length,
    });
    if writer.chance(5) {
        recipe
            .damage
            .push(Damage::Checksum(writer.rng.u16(1..0xffff)));
        return writer.send(side, flow, "wrong checksum", recipe);
    }
    writer.send(side, flow, what, recipe);
}

/// Messages in the wrong direction, undefined codes, and other queries.
fn odd(writer: &mut Writer, flow: usize, request: [u8; 2], reply: [u8; 2]) {
    let side = writer.either_side();
    let backwards = if side == Side::Cluster {
        reply
    } else {
        request
    };
    let others: &[[u8; 2]] = match writer.script.family {
        // Timestamp and its reply, information request, address mask request, redirect, router advertisement,
        // unassigned.
        Family::V4 => &[[13, 0], [14, 0], [15, 0], [17, 0], [5, 1], [9, 0], [42, 0]],
        // Node information query, unassigned.
        Family::V6 => &[[139, 0], [140, 0], [200, 0], [100, 0]],
    };
    let (kind, what) = match writer.rng.u8(..4) {
        0 => (backwards, "echo backwards"),
        1 => ([request[0], 7], "echo request with a code"),
        2 => ([reply[0], 7], "echo reply with a code"),
        _ => (*writer.choose(others), "other icmp"),
    };
    let recipe = writer.recipe(Body::Echo {
        kind,
        sequence: 9,
        length: 40,
    });
    writer.send(side, flow, what, recipe);
}
