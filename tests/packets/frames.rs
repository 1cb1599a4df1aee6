//! Frames, built with valid checksums.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use etherparse::{
    EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv4Options, SlicedPacket, TcpHeader,
    TransportSlice, UdpHeader,
};

/// The loopback interface's own MAC, so that the kernel takes the frame for its own.
const OWN_MAC: [u8; 6] = [0; 6];
const SENDER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// An address and a port.
pub type Endpoint = (Ipv4Addr, u16);

/// A frame to be: everything but the checksums.
#[derive(Clone, Debug)]
pub struct Frame {
    pub destination_mac: [u8; 6],
    pub source: Endpoint,
    pub destination: Endpoint,
    pub ttl: u8,
    pub ip_options: Vec<u8>,
    pub transport: Transport,
    pub payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// With these flags: S, A, F, R, P.
    Tcp(&'static str),
    Udp,
    /// The sender left the checksum out.
    UdpWithoutChecksum,
}

/// A TCP segment without data.
pub fn tcp(source: Endpoint, destination: Endpoint, flags: &'static str) -> Frame {
    Frame {
        destination_mac: OWN_MAC,
        source,
        destination,
        ttl: 64,
        ip_options: Vec::new(),
        transport: Transport::Tcp(flags),
        payload: Vec::new(),
    }
}

/// A UDP datagram.
pub fn udp(source: Endpoint, destination: Endpoint, payload: &[u8]) -> Frame {
    Frame {
        transport: Transport::Udp,
        payload: payload.to_vec(),
        ..tcp(source, destination, "")
    }
}

impl Frame {
    pub fn payload(self, payload: &[u8]) -> Self {
        Self {
            payload: payload.to_vec(),
            ..self
        }
    }

    /// IP options, a multiple of four bytes.
    pub fn ip_options(self, options: &[u8]) -> Self {
        Self {
            ip_options: options.to_vec(),
            ..self
        }
    }

    /// The same with other addresses and ports and one hop less, as a translation leaves it.
    pub fn translated(&self, source: Endpoint, destination: Endpoint) -> Self {
        Self {
            source,
            destination,
            ttl: self.ttl - 1,
            ..self.clone()
        }
    }

    /// The answer of the receiver.
    pub fn answer(&self, transport: Transport, payload: &[u8]) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
            transport,
            ..self.clone()
        }
        .payload(payload)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let ((source, source_port), (destination, destination_port)) =
            (self.source, self.destination);
        let transport = match self.transport {
            Transport::Tcp(flags) => {
                let mut header = TcpHeader::new(source_port, destination_port, 0x0102_0304, 64_240);
                header.syn = flags.contains('S');
                header.ack = flags.contains('A');
                header.fin = flags.contains('F');
                header.rst = flags.contains('R');
                header.psh = flags.contains('P');
                header.acknowledgment_number = if header.ack { 0x0a0b_0c0d } else { 0 };
                header.checksum = header
                    .calc_checksum_ipv4_raw(source.octets(), destination.octets(), &self.payload)
                    .expect("the payload fits into a segment");
                header.to_bytes().to_vec()
            }
            Transport::Udp => UdpHeader::with_ipv4_checksum(
                source_port,
                destination_port,
                &self.ip_header(8),
                &self.payload,
            )
            .expect("the payload fits into a datagram")
            .to_bytes()
            .to_vec(),
            Transport::UdpWithoutChecksum => {
                UdpHeader::without_ipv4_checksum(source_port, destination_port, self.payload.len())
                    .expect("the payload fits into a datagram")
                    .to_bytes()
                    .to_vec()
            }
        };
        let ethernet = Ethernet2Header {
            destination: self.destination_mac,
            source: SENDER_MAC,
            ether_type: EtherType::IPV4,
        };
        let ip = self.ip_header(transport.len());
        [
            &ethernet.to_bytes()[..],
            &ip.to_bytes(),
            &transport,
            &self.payload,
        ]
        .concat()
    }

    fn ip_header(&self, transport_len: usize) -> Ipv4Header {
        let protocol = match self.transport {
            Transport::Tcp(_) => IpNumber::TCP,
            Transport::Udp | Transport::UdpWithoutChecksum => IpNumber::UDP,
        };
        let len = u16::try_from(transport_len + self.payload.len())
            .expect("the payload fits into a packet");
        let mut header = Ipv4Header::new(
            len,
            self.ttl,
            protocol,
            self.source.0.octets(),
            self.destination.0.octets(),
        )
        .expect("the payload fits into a packet");
        header.identification = 0x4242;
        header.options =
            Ipv4Options::try_from(&self.ip_options[..]).expect("whole words of options");
        header
            .set_payload_len(usize::from(len))
            .expect("the payload fits into a packet");
        header.header_checksum = header.calc_header_checksum();
        header
    }
}

/// Source and destination of a frame, for its NAT port is not known beforehand.
pub fn endpoints(frame: &[u8]) -> Result<(Endpoint, Endpoint)> {
    let packet = SlicedPacket::from_ethernet(frame)?;
    let ip = packet
        .net
        .as_ref()
        .and_then(etherparse::NetSlice::ipv4_ref)
        .context("not IPv4")?
        .header();
    let (source_port, destination_port) = match packet.transport.context("no transport header")? {
        TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port()),
        TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port()),
        _ => anyhow::bail!("neither TCP nor UDP"),
    };
    Ok((
        (ip.source_addr(), source_port),
        (ip.destination_addr(), destination_port),
    ))
}

/// Source and destination address of a frame, whatever else is in it.
pub fn addresses(frame: &[u8]) -> (Ipv4Addr, Ipv4Addr) {
    let address = |at: usize| Ipv4Addr::new(frame[at], frame[at + 1], frame[at + 2], frame[at + 3]);
    (address(26), address(30))
}

/// Compares two frames field by field where they differ.
pub fn assert_same(actual: &[u8], expected: &Frame) -> Result<()> {
    let expected = expected.bytes();
    if actual == expected {
        return Ok(());
    }
    let show = |frame: &[u8]| match SlicedPacket::from_ethernet(frame) {
        Ok(packet) => format!(
            "{:#?}\n{:#?}",
            packet
                .net
                .as_ref()
                .and_then(etherparse::NetSlice::ipv4_ref)
                .map(|ip| ip.header().to_header()),
            match packet.transport {
                Some(TransportSlice::Tcp(tcp)) => format!("{:#?}", tcp.to_header()),
                Some(TransportSlice::Udp(udp)) => format!("{:#?}", udp.to_header()),
                other => format!("{other:?}"),
            }
        ),
        Err(error) => format!("{error}"),
    };
    let (left, right) = (show(actual), show(&expected));
    let lines: Vec<_> = left
        .lines()
        .zip(right.lines())
        .filter(|(actual, expected)| actual != expected)
        .map(|(actual, expected)| format!("  got {}\n  not {}", actual.trim(), expected.trim()))
        .collect();
    ensure!(
        false,
        "the frames differ at byte {}:\n{}",
        actual
            .iter()
            .zip(&expected)
            .position(|(a, b)| a != b)
            .unwrap_or_else(|| actual.len().min(expected.len())),
        lines.join("\n")
    );
    Ok(())
}
