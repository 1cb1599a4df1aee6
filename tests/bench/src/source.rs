//! The traffic source: UDP datagrams of many flows, as fast as one CPU sends them.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use egress_tests::Namespace;
use egress_tests::namespace::Mac;
use egress_tests::sender::FrameSender;
use etherparse::PacketBuilder;

/// The shortest Ethernet frame: 64 bytes with the frame check sequence, which the interface adds.
pub const FRAME_LEN: usize = 60;
const BATCH: usize = 64;

const HEADERS_LEN: usize = 14 + 20 + 8;
/// The offset of the source port. The destination port follows.
const SOURCE_PORT: usize = 34;
/// The offset of two words of payload that keep the checksum the same for all flows.
const BALANCE: usize = HEADERS_LEN;

/// The first client port. Every contender preserves these ports, as they are free and in its NAT range.
const FIRST_PORT: u16 = 1_024;
/// The number of client ports for a service.
pub const PORTS: u32 = 31_250;

/// The common parts of the frames.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// The MAC addresses of the sender and the router.
    pub macs: [Mac; 2],
    /// The client's address, and the address to which it sends.
    pub addresses: [Ipv4Addr; 2],
    /// The port of service 0.
    pub port: u16,
    /// The step from a service's port to the next one's.
    pub step: i16,
}

/// Sends datagrams of `flows` flows in turn, in an order without locality.
#[derive(Debug)]
pub struct Source {
    sender: FrameSender<BATCH>,
    frames: [[u8; FRAME_LEN]; BATCH],
    path: Path,
    services: u32,
    flows: u32,
    /// Coprime to `flows`.
    stride: u32,
    next: u32,
}

/// The packets that were sent.
#[derive(Clone, Copy, Debug)]
pub struct Sent {
    pub packets: u64,
    pub elapsed: Duration,
}

impl Source {
    /// Opens a source on `interface` of `namespace`, whose flows are spread over `services` services.
    pub fn on(
        namespace: &Namespace,
        interface: &str,
        path: Path,
        flows: u32,
        services: u32,
    ) -> Result<Self> {
        Ok(Self {
            sender: FrameSender::on(namespace, interface)?,
            frames: [template(&path)?; BATCH],
            path,
            services,
            flows,
            stride: stride(flows),
            next: 0,
        })
    }

    /// Sends for `time`.
    pub fn send_for(&mut self, time: Duration) -> Result<Sent> {
        self.send_while(|_, elapsed| elapsed < time)
    }

    /// Sends at least this many packets, rounded up to whole batches, but for at most `time`.
    pub fn send_count(&mut self, packets: u64, time: Duration) -> Result<Sent> {
        self.send_while(|sent, elapsed| sent < packets && elapsed < time)
    }

    fn send_while(&mut self, more: impl Fn(u64, Duration) -> bool) -> Result<Sent> {
        let start = Instant::now();
        let mut packets = 0;
        loop {
            let elapsed = start.elapsed();
            if !more(packets, elapsed) {
                return Ok(Sent { packets, elapsed });
            }
            packets += self.send_batch()? as u64;
        }
    }

    fn send_batch(&mut self) -> Result<usize> {
        for frame in &mut self.frames {
            let (source, destination) = ports(&self.path, self.services, self.next);
            self.next = (self.next + self.stride) % self.flows;
            for (place, word) in [(0, source), (2, destination)] {
                let at = SOURCE_PORT + place;
                frame[at..at + 2].copy_from_slice(&word.to_be_bytes());
                let at = BALANCE + place;
                frame[at..at + 2].copy_from_slice(&(!word).to_be_bytes());
            }
        }
        self.sender.send(&self.frames)
    }
}

/// The source and destination port of a flow. Services take turns, so that even few flows use all of them.
fn ports(path: &Path, services: u32, flow: u32) -> (u16, u16) {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "both are below the number of ports"
    )]
    let (service, client) = ((flow % services) as u16, (flow / services % PORTS) as u16);
    let offset = path.step.wrapping_mul(service.cast_signed());
    (FIRST_PORT + client, path.port.wrapping_add_signed(offset))
}

/// A step that visits every flow once per round and jumps far: close to the golden ratio of their number.
fn stride(flows: u32) -> u32 {
    fn divisor(a: u32, b: u32) -> u32 {
        if b == 0 { a } else { divisor(b, a % b) }
    }
    let golden = (u64::from(flows) * 618 / 1000).max(1);
    let golden = u32::try_from(golden).unwrap_or(1);
    (golden..=flows)
        .find(|step| divisor(*step, flows) == 1)
        .unwrap_or(1)
}

/// A frame with ports 0, whose UDP checksum is right for any ports that [`BALANCE`] compensates for.
fn template(path: &Path) -> Result<[u8; FRAME_LEN]> {
    const TTL: u8 = 64;
    let [source_mac, destination_mac] = path.macs;
    let [source, destination] = path.addresses;
    let builder = PacketBuilder::ethernet2(source_mac.0, destination_mac.0)
        .ipv4(source.octets(), destination.octets(), TTL)
        .udp(0, 0);
    let mut payload = [0; FRAME_LEN - HEADERS_LEN];
    payload[..4].fill(0xff);
    let mut frame = Vec::with_capacity(FRAME_LEN);
    builder.write(&mut frame, &payload)?;
    frame[..].try_into().context("a frame of 60 bytes")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use etherparse::{SlicedPacket, TransportSlice};

    use super::*;

    const PATH: Path = Path {
        macs: [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])],
        addresses: [Ipv4Addr::new(10, 128, 0, 2), Ipv4Addr::new(10, 128, 0, 100)],
        port: 65_535,
        step: -1,
    };

    #[test]
    fn every_flow_is_sent_once_in_a_round_and_is_another() {
        for (flows, services) in [(1, 1), (64, 2), (60_000, 2), (1_000_000, 32)] {
            let stride = stride(flows);
            let mut flow = 0;
            let seen: HashSet<_> = (0..flows)
                .map(|_| {
                    flow = (flow + stride) % flows;
                    ports(&PATH, services, flow)
                })
                .collect();
            assert_eq!(seen.len(), flows as usize, "{flows} flows");
        }
    }

    #[test]
    fn the_checksum_holds_for_any_ports() -> Result<()> {
        let mut frame = template(&PATH)?;
        frame[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&4_242_u16.to_be_bytes());
        frame[BALANCE..BALANCE + 2].copy_from_slice(&(!4_242_u16).to_be_bytes());
        let packet = SlicedPacket::from_ethernet(&frame)?;
        let Some(TransportSlice::Udp(udp)) = packet.transport else {
            panic!("no UDP");
        };
        let [source, destination] = PATH.addresses.map(|address| address.octets());
        let right = udp
            .to_header()
            .calc_checksum_ipv4_raw(source, destination, udp.payload())?;
        assert_eq!(udp.checksum(), right);
        Ok(())
    }
}
