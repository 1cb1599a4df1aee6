//! Unusual IP headers around ordinary packets, and damaged headers.

use super::{Writer, udp};
use crate::family::Family;
use crate::protocol::SYN;
use crate::recipe::{Body, Damage, Extension, Recipe, data};
use crate::script::PortChoice;
use crate::wire::Side;

/// Writes a flow in which every packet has something unusual.
pub(super) fn write(writer: &mut Writer) {
    writer.script.kind = "headers";
    let is_tcp = writer.chance(30);
    let service = if is_tcp {
        writer.tcp_service()
    } else {
        writer.udp_service()
    };
    // An error about a damaged packet may quote wrong bytes as ports, so the ports must not change.
    let flow = writer.flow_from(0, PortChoice::Kept(0), service);
    let open = if is_tcp {
        segment()
    } else {
        udp::body(30, true)
    };
    let recipe = writer.recipe(open.clone());
    writer.send(Side::Cluster, flow, "opening", recipe);
    if !is_tcp {
        let recipe = writer.recipe(open.clone());
        writer.send(Side::Outside, flow, "answer", recipe);
    }
    for _ in 0..=writer.rng.u8(..4) {
        let side = if is_tcp {
            Side::Cluster
        } else {
            writer.either_side()
        };
        let mut recipe = writer.recipe(open.clone());
        let what = change(writer, side, &mut recipe);
        writer.send(side, flow, what, recipe);
    }
}

fn segment() -> Body {
    Body::Tcp {
        flags: SYN,
        seq: 77,
        ack: 0,
        window: 0x7000,
        options: Vec::new(),
        length: 0,
    }
}

fn change(writer: &mut Writer, side: Side, recipe: &mut Recipe) -> &'static str {
    match writer.rng.u8(..100) {
        0..22 => {
            recipe.ttl = writer.rng.u8(..3);
            if recipe.ttl < 2 {
                "hop limit runs out"
            } else {
                "last hop"
            }
        }
        22..36 => with_options(writer, recipe),
        36..48 => {
            if side == Side::Cluster || matches!(recipe.body, Body::Tcp { .. }) {
                return with_options(writer, recipe);
            }
            // Above the cluster's MTU, up to that of the outside.
            let length = writer.rng.usize(1_380..=1_452);
            recipe.body = udp::body(length, true);
            recipe.df = writer.rng.bool();
            "around the mtu"
        }
        48..56 => {
            recipe
                .damage
                .push(Damage::HeaderChecksum(writer.rng.u16(1..0xffff)));
            "wrong header checksum"
        }
        56..62 => {
            recipe.damage.push(Damage::Trailer(writer.rng.usize(1..40)));
            "trailer"
        }
        62..70 => {
            let length = writer.rng.usize(1..70);
            recipe.damage.push(Damage::Truncation(length));
            "truncated"
        }
        70..76 => {
            recipe.damage.push(Damage::Version(writer.rng.u8(..16)));
            "wrong version"
        }
        76..82 => {
            recipe
                .damage
                .push(Damage::HeaderLength(writer.rng.u8(..16)));
            "wrong header length"
        }
        82..90 => {
            recipe.damage.push(Damage::Length(writer.rng.i16(-60..200)));
            "wrong packet length"
        }
        90..95 => {
            let length = writer.rng.usize(..20);
            recipe.damage.push(Damage::ShortPacket(length));
            "no whole header"
        }
        _ => {
            let protocol = *writer.choose(&[0, 2, 4, 41, 47, 50, 51, 59, 89, 103, 136, 253, 255]);
            let length = writer.rng.usize(..60);
            recipe.body = Body::Other {
                protocol,
                bytes: data(length),
            };
            "another protocol"
        }
    }
}

fn with_options(writer: &mut Writer, recipe: &mut Recipe) -> &'static str {
    match writer.script.family {
        Family::V4 => {
            let options: &[&[u8]] = &[
                &[1, 1, 1, 0],
                // Router alert.
                &[148, 4, 0, 0],
                // Record route with two slots.
                &[7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0],
                // Timestamp with one slot.
                &[68, 8, 5, 0, 0, 0, 0, 0],
                // Lengths beyond the header, of 0, and missing.
                &[7, 200, 4, 0],
                &[130, 0, 0, 0],
                &[1, 1, 1, 7],
                // A loose source route that is used up.
                &[131, 7, 8, 192, 0, 2, 1, 0],
            ];
            recipe.options = writer.choose(options).to_vec();
            "ip options"
        }
        Family::V6 => {
            use Extension::{AtomicFragment, DestinationOptions, HopByHop, Routing};
            let chains: &[&[Extension]] = &[
                &[HopByHop],
                &[DestinationOptions],
                &[
                    HopByHop,
                    DestinationOptions,
                    Routing(0),
                    AtomicFragment,
                    DestinationOptions,
                ],
                &[Routing(0)],
                &[Routing(1)],
                &[AtomicFragment],
                &[DestinationOptions; 6],
                &[DestinationOptions, HopByHop],
            ];
            recipe.extensions = writer.choose(chains).to_vec();
            "extension headers"
        }
    }
}
