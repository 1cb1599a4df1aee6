//! TCP connections, from orderly ones to nonsense.

use super::{Writer, errors};
use crate::protocol::{ACK, FIN, PSH, RST, SYN};
use crate::recipe::{Body, Damage};
use crate::wire::Side;

/// Maximum segment size, SACK permitted, window scale.
const SYN_OPTIONS: &[&[u8]] = &[
    &[],
    &[2, 4, 0x05, 0xb4],
    &[2, 4, 0x05, 0x00],
    &[2, 4, 0x05, 0xb4, 4, 2, 1, 1, 1, 3, 3, 7],
    &[1, 1, 4, 2, 2, 4, 0x02, 0x18],
];
const OPTIONS: &[&[u8]] = &[&[], &[], &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]];
const FLAGS: &[u8] = &[
    0,
    FIN,
    FIN | SYN,
    SYN | RST,
    RST,
    RST | ACK,
    FIN | RST,
    PSH,
    FIN | PSH | 0x20,
    0xff,
    SYN | FIN | ACK,
    SYN | PSH,
    SYN | ACK,
    SYN | ACK | RST,
];

/// A connection and the next sequence number of each end.
pub(super) struct Connection {
    pub(super) flow: usize,
    client: u32,
    server: u32,
}

/// Writes the life of a connection.
pub(super) fn write(writer: &mut Writer) {
    writer.script.kind = "tcp";
    let service = writer.tcp_service();
    let flow = writer.flow(service);
    let mut connection = Connection::new(writer, flow);
    open(writer, &mut connection);
    for _ in 0..writer.rng.u8(..5) {
        talk(writer, &mut connection);
    }
    if writer.chance(25) {
        errors::about_tcp(writer, &connection);
    }
    close(writer, &mut connection);
    if writer.chance(35) {
        afterwards(writer, &mut connection);
    }
    if writer.chance(10) {
        errors::about_tcp(writer, &connection);
    }
}

impl Connection {
    pub(super) fn new(writer: &mut Writer, flow: usize) -> Self {
        Self {
            flow,
            client: writer.rng.u32(..),
            server: writer.rng.u32(..),
        }
    }

    /// A segment at its sender's current sequence number.
    pub(super) fn segment(&self, side: Side, flags: u8, length: u16) -> Body {
        let (seq, ack) = match side {
            Side::Cluster => (self.client, self.server),
            Side::Outside => (self.server, self.client),
        };
        let ack = if flags & ACK == 0 { 0 } else { ack };
        Body::Tcp {
            flags,
            seq,
            ack,
            window: 0x7000,
            options: Vec::new(),
            length,
        }
    }

    fn advance(&mut self, side: Side, by: u32) {
        let seq = match side {
            Side::Cluster => &mut self.client,
            Side::Outside => &mut self.server,
        };
        *seq = seq.wrapping_add(by);
    }

    /// Sends a segment and advances the sequence number.
    fn send(
        &mut self,
        writer: &mut Writer,
        side: Side,
        flags: u8,
        length: u16,
        what: &'static str,
    ) {
        let mut body = self.segment(side, flags, length);
        if let Body::Tcp { options, .. } = &mut body {
            let known = if flags & SYN == 0 {
                OPTIONS
            } else {
                SYN_OPTIONS
            };
            *options = writer.choose(known).to_vec();
        }
        let recipe = writer.recipe(body);
        writer.send(side, self.flow, what, recipe);
        let counted = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
        self.advance(side, u32::from(length) + counted);
    }

    /// Sends a segment at an offset from its sender's current sequence number.
    fn stray(&self, writer: &mut Writer, side: Side, flags: u8, offset: u32, what: &'static str) {
        let mut body = self.segment(side, flags, 0);
        if let Body::Tcp { seq, .. } = &mut body {
            *seq = seq.wrapping_add(offset);
        }
        let recipe = writer.recipe(body);
        writer.send(side, self.flow, what, recipe);
    }

    pub(super) fn handshake(&mut self, writer: &mut Writer) {
        self.send(writer, Side::Cluster, SYN, 0, "syn");
        self.send(writer, Side::Outside, SYN | ACK, 0, "syn-ack");
        self.send(writer, Side::Cluster, ACK, 0, "ack");
    }
}

fn open(writer: &mut Writer, connection: &mut Connection) {
    use Side::{Cluster, Outside};
    match writer.rng.u8(..100) {
        0..60 => connection.handshake(writer),
        60..66 => {
            let again = (connection.client, connection.server);
            connection.send(writer, Cluster, SYN, 0, "syn");
            (connection.client, connection.server) = again;
            connection.send(writer, Cluster, SYN, 0, "syn again");
            connection.send(writer, Outside, SYN | ACK, 0, "syn-ack");
            connection.send(writer, Cluster, ACK, 0, "ack");
        }
        66..72 => {
            // A simultaneous open: each SYN is sent before the other's arrives.
            connection.send(writer, Cluster, SYN, 0, "syn");
            connection.send(writer, Outside, SYN, 0, "simultaneous syn");
            let (client, server) = (connection.client, connection.server);
            connection.client = client.wrapping_sub(1);
            connection.send(writer, Cluster, SYN | ACK, 0, "simultaneous syn-ack");
            connection.server = server.wrapping_sub(1);
            connection.send(writer, Outside, SYN | ACK, 0, "simultaneous syn-ack");
            (connection.client, connection.server) = (client, server);
        }
        72..76 => connection.send(writer, Cluster, SYN, 0, "syn"),
        76..80 => {
            connection.send(writer, Cluster, SYN, 0, "syn");
            connection.send(writer, Outside, RST | ACK, 0, "refusal");
        }
        80..84 => {
            connection.send(writer, Cluster, SYN, 0, "syn");
            connection.send(writer, Outside, SYN | ACK, 0, "syn-ack");
        }
        84..88 => {
            connection.send(writer, Cluster, SYN, 0, "syn");
            connection.send(writer, Outside, ACK, 0, "challenge ack");
            connection.send(writer, Cluster, RST, 0, "rst");
        }
        88..95 => {
            connection.send(writer, Cluster, ACK | PSH, 100, "mid-stream data");
            connection.send(writer, Outside, ACK | PSH, 100, "mid-stream data");
        }
        _ => {
            let flags = *writer.choose(FLAGS);
            connection.send(writer, Cluster, flags, 0, "odd opening");
        }
    }
}

fn talk(writer: &mut Writer, connection: &mut Connection) {
    let side = writer.either_side();
    match writer.rng.u8(..100) {
        0..50 => {
            let length = *writer.choose(&[1, 2, 100, 555, 1_200]);
            connection.send(writer, side, ACK | PSH, length, "data");
            connection.send(writer, side.other(), ACK, 0, "ack");
        }
        50..60 => {
            let before = (connection.client, connection.server);
            connection.send(writer, side, ACK | PSH, 300, "data");
            (connection.client, connection.server) = before;
            connection.send(writer, side, ACK | PSH, 300, "data again");
        }
        60..68 => connection.stray(writer, side, ACK, u32::MAX, "keepalive"),
        68..74 => {
            // All offsets are beyond the offered window.
            let offset = *writer.choose(&[1 << 30, 0x8000_0000, 0x10_0000, 0xfff0_0000]);
            connection.stray(writer, side, ACK, offset, "segment out of window");
        }
        74..80 => {
            let flags = *writer.choose(FLAGS);
            connection.stray(writer, side, flags, 0, "odd flags");
        }
        80..86 => {
            let offset = *writer.choose(&[1, 0x1000, 0x6000, 1 << 30, 0xffff_0000]);
            connection.stray(writer, side, RST, offset, "stray rst");
        }
        86..91 => {
            let body = connection.segment(side, ACK, 40);
            let mut recipe = writer.recipe(body);
            recipe
                .damage
                .push(Damage::Checksum(writer.rng.u16(1..0xffff)));
            writer.send(side, connection.flow, "wrong checksum", recipe);
        }
        91..95 => connection.stray(writer, side, SYN, 0x5000, "syn over a live connection"),
        _ => {
            let body = connection.segment(side, ACK, 20);
            let mut recipe = writer.recipe(body);
            // Data offset: below 5 words, or beyond the segment.
            let mask = *writer.choose(&[0x50 ^ 0x40, 0x50 ^ 0xf0, 0x50]);
            recipe.damage.push(Damage::Byte { at: 12, mask });
            writer.send(side, connection.flow, "wrong data offset", recipe);
        }
    }
}

fn close(writer: &mut Writer, connection: &mut Connection) {
    let side = writer.either_side();
    match writer.rng.u8(..100) {
        0..35 => {
            connection.send(writer, side, FIN | ACK, 0, "fin");
            connection.send(writer, side.other(), ACK, 0, "ack");
            if writer.chance(30) {
                connection.send(
                    writer,
                    side.other(),
                    ACK | PSH,
                    200,
                    "data of the other half",
                );
                connection.send(writer, side, ACK, 0, "ack");
            }
            connection.send(writer, side.other(), FIN | ACK, 0, "fin");
            connection.send(writer, side, ACK, 0, "last ack");
        }
        35..50 => {
            connection.send(writer, side, FIN | ACK, 0, "fin");
            connection.send(writer, side.other(), FIN | ACK, 0, "fin");
            connection.send(writer, side, ACK, 0, "last ack");
        }
        50..60 => {
            let (client, server) = (connection.client, connection.server);
            connection.send(writer, side, FIN | ACK, 0, "simultaneous fin");
            let after = (connection.client, connection.server);
            (connection.client, connection.server) = (client, server);
            connection.send(writer, side.other(), FIN | ACK, 0, "simultaneous fin");
            connection.client = after.0.max(connection.client);
            connection.server = after.1.max(connection.server);
            connection.send(writer, side, ACK, 0, "ack");
            connection.send(writer, side.other(), ACK, 0, "ack");
        }
        60..75 => connection.send(writer, side, RST, 0, "rst"),
        75..82 => connection.send(writer, side, RST | ACK, 0, "rst"),
        82..86 => connection.send(writer, side, FIN | ACK, 0, "fin"),
        _ => {}
    }
}

/// Writes what follows on the same addresses and ports when a connection has ended, or has not.
fn afterwards(writer: &mut Writer, connection: &mut Connection) {
    let side = writer.either_side();
    match writer.rng.u8(..6) {
        0..3 => {
            // Above the old connection's numbers (RFC 6191), or anywhere.
            connection.client = connection.client.wrapping_add(0x10_0000);
            connection.server = writer.rng.u32(..);
            connection.send(writer, Side::Cluster, SYN, 0, "syn of a new connection");
            connection.send(writer, Side::Outside, SYN | ACK, 0, "syn-ack");
            connection.send(writer, Side::Cluster, ACK, 0, "ack");
        }
        3 => connection.send(writer, side, ACK | PSH, 50, "late data"),
        4 => connection.stray(writer, side, RST, 0, "late rst"),
        _ => connection.send(writer, side, FIN | ACK, 0, "late fin"),
    }
}
