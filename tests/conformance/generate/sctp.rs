//! SCTP associations.

use super::{Writer, errors};
use crate::recipe::{Body, Damage, Recipe, data};
use crate::script::{PortChoice, Service};
use crate::wire::Side;

const DATA: u8 = 0;
const INIT: u8 = 1;
const INIT_ACK: u8 = 2;
const SACK: u8 = 3;
const HEARTBEAT: u8 = 4;
const HEARTBEAT_ACK: u8 = 5;
const ABORT: u8 = 6;
const SHUTDOWN: u8 = 7;
const SHUTDOWN_ACK: u8 = 8;
const ERROR: u8 = 9;
const COOKIE_ECHO: u8 = 10;
const COOKIE_ACK: u8 = 11;
const SHUTDOWN_COMPLETE: u8 = 14;

const HANDSHAKE: [(Side, u8, &str); 4] = [
    (Side::Cluster, INIT, "init"),
    (Side::Outside, INIT_ACK, "init ack"),
    (Side::Cluster, COOKIE_ECHO, "cookie echo"),
    (Side::Outside, COOKIE_ACK, "cookie ack"),
];

/// The verification tags of packets to the server and to the client.
pub(super) struct Association {
    pub(super) flow: usize,
    to_server: u32,
    to_client: u32,
}

/// Writes the life of an association.
pub(super) fn write(writer: &mut Writer) {
    writer.script.kind = "sctp";
    let service = if writer.chance(80) {
        Service::Rule(writer.network().association())
    } else {
        Service::Port(9_000)
    };
    let association = Association::new(writer, service);
    let steps = *writer.choose(&[4, 4, 4, 4, 1, 2, 3, 0]);
    association.open(writer, steps);
    for _ in 0..writer.rng.u8(..4) {
        talk(writer, &association);
    }
    close(writer, &association);
}

impl Association {
    pub(super) fn new(writer: &mut Writer, service: Service) -> Self {
        Self {
            // An error quotes no whole CRC, from which a changed port could be removed.
            flow: writer.flow_from(0, PortChoice::Kept(0), service),
            to_server: writer.rng.u32(1..),
            to_client: writer.rng.u32(1..),
        }
    }

    /// Writes the whole handshake.
    pub(super) fn handshake(&self, writer: &mut Writer) {
        self.open(writer, HANDSHAKE.len());
    }

    /// Writes the first `steps` packets of the handshake.
    fn open(&self, writer: &mut Writer, steps: usize) {
        for &(side, chunk, what) in &HANDSHAKE[..steps] {
            let body = match chunk {
                INIT | INIT_ACK => self.initiation(side),
                COOKIE_ECHO => data(40),
                _ => Vec::new(),
            };
            self.send(writer, side, chunk, &body, what);
        }
    }

    /// A packet with this number of data bytes.
    pub(super) fn data(&self, side: Side, length: usize) -> Body {
        self.packet(side, DATA, &data(12 + length))
    }

    fn packet(&self, side: Side, chunk: u8, body: &[u8]) -> Body {
        let tag = match (chunk, side) {
            (INIT, _) => 0,
            (_, Side::Cluster) => self.to_server,
            (_, Side::Outside) => self.to_client,
        };
        let mut chunks = vec![chunk, if chunk == DATA { 3 } else { 0 }];
        chunks.extend(u16::try_from(4 + body.len()).unwrap_or(4).to_be_bytes());
        chunks.extend(body);
        chunks.resize(chunks.len().next_multiple_of(4), 0);
        Body::Sctp { tag, chunks }
    }

    fn send(&self, writer: &mut Writer, side: Side, chunk: u8, body: &[u8], what: &'static str) {
        let recipe = self.recipe(writer, side, chunk, body);
        writer.send(side, self.flow, what, recipe);
    }

    fn recipe(&self, writer: &mut Writer, side: Side, chunk: u8, body: &[u8]) -> Recipe {
        let body = self.packet(side, chunk, body);
        writer.recipe(body)
    }

    /// The value of an INIT or INIT ACK: tag, window, streams, first TSN.
    fn initiation(&self, side: Side) -> Vec<u8> {
        let own = match side {
            Side::Cluster => self.to_client,
            Side::Outside => self.to_server,
        };
        let mut body = own.to_be_bytes().to_vec();
        body.extend([0, 1, 0, 0, 0, 10, 0, 10]);
        body.extend(own.to_be_bytes());
        body
    }
}

fn talk(writer: &mut Writer, association: &Association) {
    let side = writer.either_side();
    match writer.rng.u8(..100) {
        0..50 => {
            let length = 12 + *writer.choose(&[1, 4, 99, 1_000]);
            association.send(writer, side, DATA, &data(length), "data");
            association.send(writer, side.other(), SACK, &data(12), "sack");
        }
        50..62 => {
            association.send(writer, side, HEARTBEAT, &data(8), "heartbeat");
            association.send(
                writer,
                side.other(),
                HEARTBEAT_ACK,
                &data(8),
                "heartbeat ack",
            );
        }
        62..70 => {
            let mut recipe = association.recipe(writer, side, DATA, &data(60));
            recipe
                .damage
                .push(Damage::Checksum(writer.rng.u16(1..0xffff)));
            writer.send(side, association.flow, "wrong checksum", recipe);
        }
        70..76 => {
            let mut recipe = association.recipe(writer, side, DATA, &data(60));
            if let Body::Sctp { tag, .. } = &mut recipe.body {
                *tag ^= 0x5555;
            }
            writer.send(side, association.flow, "wrong tag", recipe);
        }
        76..82 => association.send(writer, side, ERROR, &data(8), "error"),
        82..86 => {
            let mut recipe = association.recipe(writer, side, DATA, &data(60));
            // Never cuts within the CRC: part of it cannot be compared.
            let length = *writer.choose(&[0, 1, 4, 7, 8, 12, 15, 16, 19]);
            recipe.damage.push(Damage::ShortPacket(length));
            writer.send(side, association.flow, "no whole header", recipe);
        }
        _ => {
            let about = association.recipe(writer, side.other(), DATA, &data(60));
            errors::about(writer, side, association.flow, about);
        }
    }
}

fn close(writer: &mut Writer, association: &Association) {
    let side = writer.either_side();
    match writer.rng.u8(..10) {
        0..5 => {
            association.send(writer, side, SHUTDOWN, &data(4), "shutdown");
            association.send(writer, side.other(), SHUTDOWN_ACK, &[], "shutdown ack");
            association.send(writer, side, SHUTDOWN_COMPLETE, &[], "shutdown complete");
        }
        5..8 => association.send(writer, side, ABORT, &[], "abort"),
        _ => {}
    }
}
