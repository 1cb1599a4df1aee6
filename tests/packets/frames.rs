//! Builds frames with valid checksums.

use std::net::IpAddr;

use anyhow::{Context as _, Result, bail, ensure};
use crc::{CRC_32_ISCSI, Crc};
use etherparse::{
    EtherType, Ethernet2Header, IcmpEchoHeader, Icmpv4Header, Icmpv4Type, Icmpv6Header, Icmpv6Type,
    IpNumber, Ipv4Header, Ipv4Options, Ipv6Header, NetSlice, SlicedPacket, TcpHeader,
    TransportSlice, UdpHeader,
};

/// The loopback interface's MAC address, so that the kernel accepts the frame.
const OWN_MAC: [u8; 6] = [0; 6];
const SENDER_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x01];

/// The checksum of SCTP (RFC 9260, appendix A).
const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// The sequence number of a segment by default, and the number that every segment with ACK acknowledges.
pub const SEQUENCE: u32 = 0x0102_0304;

const ETHERNET_LEN: usize = 14;
const FITS: &str = "the payload fits into a packet";
const ONE_FAMILY: &str = "source and destination belong to one family";

/// An address and a port. For an echo message, the identifier stands for the requester's port, and the other port is 0.
pub type Endpoint = (IpAddr, u16);

/// A frame without its checksums.
#[derive(Clone, Debug)]
pub struct Frame {
    pub destination_mac: [u8; 6],
    pub source: Endpoint,
    pub destination: Endpoint,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// TCP's sequence number, or SCTP's verification tag.
    pub sequence_or_tag: u32,
    /// IPv4 only.
    pub ip_options: Vec<u8>,
    /// IPv6 only.
    pub extensions: &'static [Extension],
    pub transport: Transport,
    pub payload: Vec<u8>,
}

/// An IPv6 extension header: its protocol number, and the bytes after its next-header field.
///
/// Not one of the parser's own types, because those cannot hold invalid values.
pub type Extension = (IpNumber, &'static [u8]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// With these flags: S, A, F, R, P.
    Tcp(&'static str),
    Udp,
    /// Without a checksum.
    UdpWithoutChecksum,
    /// The payload consists of chunks.
    Sctp,
    /// With the checksum left to the device.
    SctpWithoutChecksum,
    EchoRequest,
    EchoReply,
    /// Any other ICMP message, of either family.
    Icmp(Message),
}

/// The header of an ICMP message of either family, without its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub kind: u8,
    pub code: u8,
    /// The second word, whose meaning depends on the type.
    pub rest: [u8; 4],
}

pub fn tcp(source: Endpoint, destination: Endpoint, flags: &'static str) -> Frame {
    Frame {
        destination_mac: OWN_MAC,
        source,
        destination,
        ttl: 64,
        sequence_or_tag: SEQUENCE,
        ip_options: Vec::new(),
        extensions: &[],
        transport: Transport::Tcp(flags),
        payload: Vec::new(),
    }
}

pub fn udp(source: Endpoint, destination: Endpoint, payload: &[u8]) -> Frame {
    tcp(source, destination, "")
        .transport(Transport::Udp)
        .payload(payload)
}

/// An SCTP packet with these chunks.
pub fn sctp(source: Endpoint, destination: Endpoint, chunks: &[u8]) -> Frame {
    tcp(source, destination, "")
        .transport(Transport::Sctp)
        .payload(chunks)
}

/// An SCTP chunk of this type (RFC 9260, section 3.2), padded to a multiple of four bytes.
pub fn chunk(kind: u8, value: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(4 + value.len()).expect(FITS).to_be_bytes();
    let mut chunk = [&[kind, 0, high, low], value].concat();
    chunk.resize(chunk.len().next_multiple_of(4), 0);
    chunk
}

pub fn echo_request(source: IpAddr, destination: IpAddr, identifier: u16) -> Frame {
    tcp((source, identifier), (destination, 0), "")
        .transport(Transport::EchoRequest)
        .payload(b"are you there?")
}

/// An ICMP message of either family other than an echo. The payload of an error is the beginning of a packet.
pub fn icmp(source: IpAddr, destination: IpAddr, message: Message, payload: &[u8]) -> Frame {
    tcp((source, 0), (destination, 0), "")
        .transport(Transport::Icmp(message))
        .payload(payload)
}

impl Frame {
    pub fn payload(self, payload: &[u8]) -> Self {
        Self {
            payload: payload.to_vec(),
            ..self
        }
    }

    pub fn transport(self, transport: Transport) -> Self {
        Self { transport, ..self }
    }

    pub fn ttl(self, ttl: u8) -> Self {
        Self { ttl, ..self }
    }

    /// Sets TCP's sequence number, or SCTP's verification tag.
    pub fn sequence_or_tag(self, sequence_or_tag: u32) -> Self {
        Self {
            sequence_or_tag,
            ..self
        }
    }

    /// Adds IPv4 options, a multiple of four bytes.
    pub fn ip_options(self, options: &[u8]) -> Self {
        Self {
            ip_options: options.to_vec(),
            ..self
        }
    }

    /// Adds IPv6 extension headers, in this order.
    pub fn extensions(self, extensions: &'static [Extension]) -> Self {
        Self { extensions, ..self }
    }

    pub fn destination_mac(self, destination_mac: [u8; 6]) -> Self {
        Self {
            destination_mac,
            ..self
        }
    }

    /// The frame with other endpoints.
    pub fn between(&self, source: Endpoint, destination: Endpoint) -> Self {
        Self {
            source,
            destination,
            ..self.clone()
        }
    }

    /// The frame with other endpoints and one hop less, as after translation.
    pub fn translated(&self, source: Endpoint, destination: Endpoint) -> Self {
        self.between(source, destination).ttl(self.ttl - 1)
    }

    /// The receiver's answer.
    pub fn answer(&self, transport: Transport, payload: &[u8]) -> Self {
        self.between(self.destination, self.source)
            .transport(transport)
            .payload(payload)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let ethernet = Ethernet2Header {
            destination: self.destination_mac,
            source: SENDER_MAC,
            ether_type: match self.source.0 {
                IpAddr::V4(_) => EtherType::IPV4,
                IpAddr::V6(_) => EtherType::IPV6,
            },
        };
        [&ethernet.to_bytes()[..], &self.packet()].concat()
    }

    /// The frame without its Ethernet header.
    pub fn packet(&self) -> Vec<u8> {
        let transport = self.transport_header();
        let network = self.network_header(transport.len() + self.payload.len());
        [&network[..], &transport, &self.payload].concat()
    }

    /// Gives a datagram a payload of one word that makes its checksum come out as 0.
    ///
    /// The checksum is the complement of the sum. As the payload, it makes the sum all ones.
    pub fn with_checksum_0(self) -> Self {
        let at = self.transport_offset() + 6;
        let lacked = self.clone().payload(&[0, 0]).bytes()[at..at + 2].to_vec();
        self.payload(&lacked)
    }

    /// The offset of the transport header in the frame.
    pub fn transport_offset(&self) -> usize {
        ETHERNET_LEN + self.network_header(0).len()
    }

    /// The IP header with its options or extension headers, for `len` bytes of payload.
    fn network_header(&self, len: usize) -> Vec<u8> {
        let number = self.ip_number();
        match (self.source.0, self.destination.0) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let mut header =
                    Ipv4Header::new(0, self.ttl, number, source.octets(), destination.octets())
                        .expect(FITS);
                header.identification = 0x4242;
                header.options =
                    Ipv4Options::try_from(&self.ip_options[..]).expect("whole words of options");
                header.set_payload_len(len).expect(FITS);
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let numbers = self.extensions.iter().map(|(number, _)| *number);
                let mut numbers = numbers.chain([number]);
                let next_header = numbers.next().expect("the transport's number comes last");
                let extensions: Vec<u8> = self
                    .extensions
                    .iter()
                    .zip(numbers)
                    .flat_map(|((_, content), next)| [&[next.0], *content].concat())
                    .collect();
                let header = Ipv6Header {
                    payload_length: u16::try_from(extensions.len() + len).expect(FITS),
                    next_header,
                    hop_limit: self.ttl,
                    source: source.octets(),
                    destination: destination.octets(),
                    ..Ipv6Header::default()
                };
                [&header.to_bytes()[..], &extensions].concat()
            }
            _ => panic!("{ONE_FAMILY}"),
        }
    }

    fn ip_number(&self) -> IpNumber {
        match (self.transport, self.source.0) {
            (Transport::Tcp(_), _) => IpNumber::TCP,
            (Transport::Udp | Transport::UdpWithoutChecksum, _) => IpNumber::UDP,
            (Transport::Sctp | Transport::SctpWithoutChecksum, _) => IpNumber::SCTP,
            (_, IpAddr::V4(_)) => IpNumber::ICMP,
            (_, IpAddr::V6(_)) => IpNumber::IPV6_ICMP,
        }
    }

    fn transport_header(&self) -> Vec<u8> {
        match self.transport {
            Transport::Tcp(flags) => self.tcp_header(flags),
            Transport::Udp => self.udp_header(true),
            Transport::UdpWithoutChecksum => self.udp_header(false),
            Transport::Sctp => self.sctp_header(true),
            Transport::SctpWithoutChecksum => self.sctp_header(false),
            Transport::EchoRequest => self.icmp_header(
                Icmpv4Type::EchoRequest,
                Icmpv6Type::EchoRequest,
                self.echo(),
            ),
            Transport::EchoReply => {
                self.icmp_header(Icmpv4Type::EchoReply, Icmpv6Type::EchoReply, self.echo())
            }
            Transport::Icmp(message) => self.icmp_header(
                |Message { kind, code, rest }| Icmpv4Type::Unknown {
                    type_u8: kind,
                    code_u8: code,
                    bytes5to8: rest,
                },
                |Message { kind, code, rest }| Icmpv6Type::Unknown {
                    type_u8: kind,
                    code_u8: code,
                    bytes5to8: rest,
                },
                message,
            ),
        }
    }

    fn tcp_header(&self, flags: &str) -> Vec<u8> {
        let mut header = TcpHeader::new(
            self.source.1,
            self.destination.1,
            self.sequence_or_tag,
            64_240,
        );
        header.syn = flags.contains('S');
        header.ack = flags.contains('A');
        header.fin = flags.contains('F');
        header.rst = flags.contains('R');
        header.psh = flags.contains('P');
        header.acknowledgment_number = if header.ack { SEQUENCE } else { 0 };
        header.checksum = match (self.source.0, self.destination.0) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                header.calc_checksum_ipv4_raw(source.octets(), destination.octets(), &self.payload)
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                header.calc_checksum_ipv6_raw(source.octets(), destination.octets(), &self.payload)
            }
            _ => panic!("{ONE_FAMILY}"),
        }
        .expect(FITS);
        header.to_bytes().to_vec()
    }

    fn udp_header(&self, with_checksum: bool) -> Vec<u8> {
        let mut header =
            UdpHeader::without_ipv4_checksum(self.source.1, self.destination.1, self.payload.len())
                .expect(FITS);
        if with_checksum {
            header.checksum = match (self.source.0, self.destination.0) {
                (IpAddr::V4(source), IpAddr::V4(destination)) => header.calc_checksum_ipv4_raw(
                    source.octets(),
                    destination.octets(),
                    &self.payload,
                ),
                (IpAddr::V6(source), IpAddr::V6(destination)) => header.calc_checksum_ipv6_raw(
                    source.octets(),
                    destination.octets(),
                    &self.payload,
                ),
                _ => panic!("{ONE_FAMILY}"),
            }
            .expect(FITS);
        }
        header.to_bytes().to_vec()
    }

    fn sctp_header(&self, with_checksum: bool) -> Vec<u8> {
        let mut header = [0; 12];
        header[..2].copy_from_slice(&self.source.1.to_be_bytes());
        header[2..4].copy_from_slice(&self.destination.1.to_be_bytes());
        header[4..8].copy_from_slice(&self.sequence_or_tag.to_be_bytes());
        if with_checksum {
            let mut digest = CRC32C.digest();
            digest.update(&header);
            digest.update(&self.payload);
            header[8..].copy_from_slice(&digest.finalize().to_le_bytes());
        }
        header.to_vec()
    }

    fn echo(&self) -> IcmpEchoHeader {
        IcmpEchoHeader {
            id: match self.transport {
                Transport::EchoRequest => self.source.1,
                _ => self.destination.1,
            },
            seq: 7,
        }
    }

    /// The header of a message, for which each family has its own type.
    fn icmp_header<M>(
        &self,
        v4: impl Fn(M) -> Icmpv4Type,
        v6: impl Fn(M) -> Icmpv6Type,
        message: M,
    ) -> Vec<u8> {
        match (self.source.0, self.destination.0) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                Icmpv4Header::with_checksum(v4(message), &self.payload)
                    .to_bytes()
                    .to_vec()
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => Icmpv6Header::with_checksum(
                v6(message),
                source.octets(),
                destination.octets(),
                &self.payload,
            )
            .expect(FITS)
            .to_bytes()
            .to_vec(),
            _ => panic!("{ONE_FAMILY}"),
        }
    }
}

/// The source and destination of a frame. The NAT port is not known beforehand.
pub fn endpoints(frame: &[u8]) -> Result<(Endpoint, Endpoint)> {
    let packet = SlicedPacket::from_ethernet(frame)?;
    let payload = packet.ip_payload().context("neither IPv4 nor IPv6")?;
    let echo = |kind, id| match kind {
        8 | 128 => Ok((id, 0)),
        0 | 129 => Ok((0, id)),
        kind => bail!("ICMP type {kind} has no ports"),
    };
    let word = |at: usize| -> Result<u16> {
        let bytes = payload.payload.get(at..at + 2).context("no ports")?;
        Ok(u16::from_be_bytes([bytes[0], bytes[1]]))
    };
    let (source_port, destination_port) = match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => (tcp.source_port(), tcp.destination_port()),
        Some(TransportSlice::Udp(udp)) => (udp.source_port(), udp.destination_port()),
        Some(TransportSlice::Icmpv4(icmp)) => echo(icmp.type_u8(), word(4)?)?,
        Some(TransportSlice::Icmpv6(icmp)) => echo(icmp.type_u8(), word(4)?)?,
        None if payload.ip_number == IpNumber::SCTP => (word(0)?, word(2)?),
        _ => bail!("protocol {:?} has no ports", payload.ip_number),
    };
    let (source, destination) = addresses(frame);
    Ok(((source, source_port), (destination, destination_port)))
}

/// The source and destination address of a frame with any contents.
pub fn addresses(frame: &[u8]) -> (IpAddr, IpAddr) {
    fn at<const N: usize>(frame: &[u8], offset: usize) -> IpAddr
    where
        IpAddr: From<[u8; N]>,
    {
        let octets: [u8; N] = frame[offset..offset + N]
            .try_into()
            .expect("the slice has length N");
        octets.into()
    }
    if frame[12..14] == EtherType::IPV6.0.to_be_bytes() {
        (at::<16>(frame, 22), at::<16>(frame, 38))
    } else {
        (at::<4>(frame, 26), at::<4>(frame, 30))
    }
}

/// Compares two frames, and reports the difference field by field.
pub fn assert_same(actual: &[u8], expected: &Frame) -> Result<()> {
    let expected = expected.bytes();
    if actual == expected {
        return Ok(());
    }
    let (left, right) = (show(actual), show(&expected));
    let lines: Vec<_> = left
        .lines()
        .zip(right.lines())
        .filter(|(actual, expected)| actual != expected)
        .map(|(actual, expected)| format!("  got {}\n  not {}", actual.trim(), expected.trim()))
        .collect();
    let shorter = actual.len().min(expected.len());
    let at = (0..shorter)
        .find(|at| actual[*at] != expected[*at])
        .unwrap_or(shorter);
    let rest = |frame: &[u8]| frame[at..frame.len().min(at + 8)].to_vec();
    ensure!(
        false,
        "the frames differ at byte {at} of {}: {:02x?} instead of {:02x?} (of {})\n{}",
        actual.len(),
        rest(actual),
        rest(&expected),
        expected.len(),
        lines.join("\n")
    );
    Ok(())
}

fn show(frame: &[u8]) -> String {
    let packet = match SlicedPacket::from_ethernet(frame) {
        Ok(packet) => packet,
        Err(error) => return error.to_string(),
    };
    let network = match &packet.net {
        Some(NetSlice::Ipv4(ip)) => format!("{:#?}", ip.header().to_header()),
        Some(NetSlice::Ipv6(ip)) => format!("{:#?}", ip.header().to_header()),
        other => format!("{other:?}"),
    };
    let transport = match packet.transport {
        Some(TransportSlice::Tcp(tcp)) => format!("{:#?}", tcp.to_header()),
        Some(TransportSlice::Udp(udp)) => format!("{:#?}", udp.to_header()),
        Some(TransportSlice::Icmpv4(icmp)) => format!("{:#?}", icmp.header()),
        Some(TransportSlice::Icmpv6(icmp)) => format!("{:#?}", icmp.header()),
        _ => String::new(),
    };
    format!("{network}\n{transport}")
}
