//! UDP flows.

use super::{Writer, errors};
use crate::recipe::{Body, Damage, data};
use crate::script::PortChoice;
use crate::wire::Side;

/// Writes datagrams in both directions.
pub(super) fn write(writer: &mut Writer) {
    writer.script.kind = "udp";
    let service = writer.udp_service();
    if writer.chance(10) {
        // Two clients with the same port: one of them gets another NAT port.
        for client in 0..2 {
            writer.flow_from(client, PortChoice::Kept(0), service);
        }
    } else {
        writer.flow(service);
    }
    let mut is_open = [false; 2];
    // In the kernel's NAT, an unsolicited datagram of a server takes the port from the next client that asks for it.
    // Another client must therefore come first.
    let is_alone = writer.script.flows.len() == 1;
    for index in 0..2 + writer.rng.u8(..6) {
        let flow = writer.rng.usize(..writer.script.flows.len());
        let may_start_outside = is_open[flow] || is_alone && (index > 0 || writer.chance(5));
        let side = if may_start_outside && writer.rng.bool() {
            Side::Outside
        } else {
            Side::Cluster
        };
        if !is_open[flow] && !is_alone {
            let recipe = writer.recipe(body(5, true));
            writer.send(side, flow, "datagram", recipe);
        } else if is_open[flow] && writer.chance(25) {
            errors::about_udp(writer, side, flow);
        } else {
            datagram(writer, side, flow);
        }
        is_open[flow] = true;
    }
}

/// A datagram with `length` bytes of data.
pub(super) fn body(length: usize, checksum: bool) -> Body {
    Body::Udp {
        checksum,
        payload: data(length),
    }
}

fn datagram(writer: &mut Writer, side: Side, flow: usize) {
    let length = *writer.choose(&[0, 1, 2, 3, 18, 100, 512, 1_001, 1_372 - 20]);
    match writer.rng.u8(..100) {
        0..70 => {
            let recipe = writer.recipe(body(length, true));
            writer.send(side, flow, "datagram", recipe);
        }
        70..82 => {
            let recipe = writer.recipe(body(length, false));
            writer.send(side, flow, "datagram without checksum", recipe);
        }
        82..90 => {
            let mut recipe = writer.recipe(body(length, true));
            recipe
                .damage
                .push(Damage::Checksum(writer.rng.u16(1..0xffff)));
            writer.send(side, flow, "wrong checksum", recipe);
        }
        90..95 => {
            let mut recipe = writer.recipe(body(20, true));
            // The length of the datagram: less or more than there is.
            let mask = *writer.choose(&[8, 28, 0x40]);
            recipe.damage.push(Damage::Byte { at: 5, mask });
            writer.send(side, flow, "wrong length", recipe);
        }
        _ => {
            let mut recipe = writer.recipe(body(20, true));
            let length = writer.rng.usize(..8);
            recipe.damage.push(Damage::ShortPacket(length));
            writer.send(side, flow, "no whole header", recipe);
        }
    }
}
