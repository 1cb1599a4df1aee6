//! The possible packets of a sequence: from a client, from a server, an error about one, or anything else.

use std::net::IpAddr;

use arbitrary::Arbitrary;
use egress_common::Side;

use crate::{
    bench::{FAMILIES, Family, folded},
    frames::{Endpoint, Frame, Message, Transport, chunk, echo_request, icmp, sctp, tcp, udp},
};

/// Usual and unusual combinations of flags.
const FLAGS: [&str; 10] = ["S", "SA", "A", "PA", "FA", "R", "RA", "F", "", "SFRA"];
/// Ports with and without a rule.
const PORTS: [u16; 6] = [8080, 8443, 80, 5000, 3868, 9090];
/// Client ports that are preserved, that are replaced, and at the edges of the NAT range.
const CLIENT_PORTS: [u16; 5] = [2000, 40_000, 1023, 61_000, 65_535];

/// One packet.
#[derive(Debug, Arbitrary)]
pub struct Step {
    packet: Packet,
    change: Option<Change>,
}

#[derive(Debug, Arbitrary)]
enum Packet {
    /// From a client to the router.
    Client {
        v6: bool,
        client: u8,
        port: u8,
        service: u8,
        content: Content,
    },
    /// From the server of a flow, in answer to the packet with this index.
    Answer { to: u8, content: Content },
    /// An ICMP error about the packet with this index, from a host on the side that it went to.
    Error {
        about: u8,
        kind: u8,
        code: u8,
        rest: [u8; 4],
        length: u8,
    },
    /// The packet with this index again, on this side.
    Again { packet: u8, egress: bool },
    /// Arbitrary bytes.
    Raw { egress: bool, bytes: Vec<u8> },
}

#[derive(Debug, Arbitrary)]
enum Content {
    Tcp { flags: u8, sequence: u32, data: u8 },
    Udp { data: u8, checksum: bool },
    Sctp { kind: u8, tag: u32, data: u8 },
    Echo,
}

/// A change to a packet before it is sent.
#[derive(Debug, Arbitrary)]
enum Change {
    Ttl(u8),
    Byte {
        at: u16,
        value: u8,
    },
    Cut {
        length: u16,
    },
    /// Sets IPv4's fragment field, or inserts an IPv6 fragment header with this offset and flags.
    Fragment {
        field: u16,
    },
}

/// A packet that was forwarded.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The side on which it arrived.
    pub side: Side,
    /// The frame as it arrived, and as it left.
    pub frames: [Vec<u8>; 2],
    /// The source and destination with which it left.
    pub ends: [Endpoint; 2],
}

impl Step {
    /// The frame to send and the side on which it arrives. `None` if it cannot be built.
    pub fn frame(&self, seen: &[Seen]) -> Option<(Side, Vec<u8>)> {
        let chosen = |number: u8| seen.get(usize::from(number) % seen.len().max(1));
        let (side, mut frame) = match &self.packet {
            Packet::Client {
                v6,
                client,
                port,
                service,
                content,
            } => {
                let family = &FAMILIES[usize::from(*v6)];
                let client = (
                    neighbour(family.client, client % 4),
                    pick(&CLIENT_PORTS, *port),
                );
                let service = (family.router, pick(&PORTS, *service));
                (
                    Side::Cluster,
                    content.between(client, service, self.ttl()).bytes(),
                )
            }
            Packet::Answer { to, content } => {
                let Seen { side, ends, .. } = chosen(*to)?;
                let answer = content.between(ends[1], ends[0], self.ttl());
                (side.opposite(), answer.bytes())
            }
            Packet::Error {
                about,
                kind,
                code,
                rest,
                length,
            } => {
                let Seen { side, frames, ends } = chosen(*about)?;
                let message = Message {
                    kind: *kind,
                    code: *code,
                    rest: *rest,
                };
                let packet = &frames[1][14..];
                let inside = &packet[..packet.len().min(usize::from(*length))];
                let host = family(ends[1].0).outsider;
                (
                    side.opposite(),
                    icmp(host, ends[0].0, message, inside).bytes(),
                )
            }
            Packet::Again { packet, egress } => (side(*egress), chosen(*packet)?.frames[0].clone()),
            Packet::Raw { egress, bytes } => (side(*egress), bytes.clone()),
        };
        match self.change {
            Some(Change::Byte { at, value }) => {
                let at = usize::from(at) % frame.len().max(1);
                *frame.get_mut(at)? = value;
            }
            Some(Change::Cut { length }) => frame.truncate(usize::from(length)),
            Some(Change::Fragment { field }) => make_fragment(&mut frame, field),
            Some(Change::Ttl(_)) | None => {}
        }
        // `BPF_PROG_TEST_RUN` requires a whole IP header and a frame of at most a page.
        let shortest = match frame.get(12..14)? {
            [0x86, 0xdd] => 14 + 40,
            _ => 14 + 20,
        };
        (shortest..=3000)
            .contains(&frame.len())
            .then_some((side, frame))
    }

    fn ttl(&self) -> u8 {
        match self.change {
            Some(Change::Ttl(ttl)) => ttl,
            _ => 64,
        }
    }
}

impl Content {
    fn between(&self, source: Endpoint, destination: Endpoint, ttl: u8) -> Frame {
        let data = |length: &u8| vec![0x5a; usize::from(*length)];
        match self {
            Self::Tcp {
                flags,
                sequence,
                data: length,
            } => tcp(source, destination, pick(&FLAGS, *flags))
                .sequence_or_tag(*sequence)
                .payload(&data(length)),
            Self::Udp {
                data: length,
                checksum: true,
            } => udp(source, destination, &data(length)),
            Self::Udp {
                data: length,
                checksum: false,
            } => udp(source, destination, &data(length)).transport(Transport::UdpWithoutChecksum),
            Self::Sctp {
                kind,
                tag,
                data: length,
            } => sctp(source, destination, &chunk(kind % 16, &data(length))).sequence_or_tag(*tag),
            Self::Echo if destination.1 == 0 || source.1 != 0 => {
                echo_request(source.0, destination.0, source.1)
            }
            Self::Echo => echo_request(source.0, destination.0, 0)
                .between(source, destination)
                .transport(Transport::EchoReply),
        }
        .ttl(ttl)
    }
}

const fn side(egress: bool) -> Side {
    if egress { Side::Egress } else { Side::Cluster }
}

fn pick<T: Copy>(list: &[T], number: u8) -> T {
    list[usize::from(number) % list.len()]
}

/// The family of an address.
pub fn family(address: IpAddr) -> &'static Family {
    &FAMILIES[usize::from(address.is_ipv6())]
}

/// Another host of the same network.
fn neighbour(address: IpAddr, number: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            [a, b, c, d + number].into()
        }
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[15] += number;
            octets.into()
        }
    }
}

/// Turns a packet into a fragment with a valid header checksum.
fn make_fragment(frame: &mut Vec<u8>, field: u16) {
    let [high, low] = field.to_be_bytes();
    if frame.len() >= 34 && frame[14] == 0x45 {
        frame[20..22].copy_from_slice(&[high & 0x3f, low]);
        frame[24..26].fill(0);
        let sum = !folded(&frame[14..34]);
        frame[24..26].copy_from_slice(&sum.to_be_bytes());
    } else if frame.len() >= 54 && frame[14] >> 4 == 6 && frame[20] != 44 {
        let header = [frame[20], 0, high, low & 0xf9, 0, 0, 0, 1];
        frame[20] = 44;
        let length = u16::from_be_bytes([frame[18], frame[19]]).wrapping_add(8);
        frame[18..20].copy_from_slice(&length.to_be_bytes());
        frame.splice(54..54, header);
    }
}
