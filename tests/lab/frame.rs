//! Captured frames, and the fields that tests examine.

use std::net::IpAddr;

use etherparse::{
    LaxIpPayloadSlice, LaxNetSlice, LaxSlicedPacket, LinkSlice, TcpOptionElement, TcpSlice,
    TransportSlice,
};

use crate::addresses::Protocol;
use crate::namespace::Mac;

/// A captured Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether this host sent the frame, rather than received it.
    pub outgoing: bool,
    /// The frame from its destination MAC address on, without its frame check sequence.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// The IP packet in the frame, if any.
    pub fn packet(&self) -> Option<Packet> {
        Packet::parse(&self.bytes)
    }
}

/// An IP packet with the Ethernet addresses of its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The sender's MAC address.
    pub source_mac: Mac,
    /// The receiver's MAC address.
    pub destination_mac: Mac,
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The IPv4 options; empty for IPv6.
    pub ip_options: Vec<u8>,
    /// The protocol number of the payload.
    pub protocol: u8,
    /// Everything after the IP header.
    pub payload: Vec<u8>,
    /// The transport header.
    pub transport: Transport,
}

/// The transport header of a [`Packet`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// The source port.
        source: u16,
        /// The destination port.
        destination: u16,
    },
    /// UDP.
    Udp {
        /// The source port.
        source: u16,
        /// The destination port.
        destination: u16,
        /// The checksum field; 0 means no checksum.
        checksum: u16,
    },
    /// SCTP.
    Sctp {
        /// The source port.
        source: u16,
        /// The destination port.
        destination: u16,
    },
    /// Another protocol, or a header that cannot be parsed.
    Other,
}

impl Packet {
    fn parse(frame: &[u8]) -> Option<Self> {
        let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
        let Some(LinkSlice::Ethernet2(ethernet)) = packet.link else {
            return None;
        };
        let net = packet.net?;
        let ip = IpLayer::of(&net)?;
        let ip_options = match &net {
            LaxNetSlice::Ipv4(ip) => ip.header().options().to_vec(),
            _ => Vec::new(),
        };
        let transport = match packet.transport {
            Some(TransportSlice::Tcp(tcp)) => Transport::Tcp {
                source: tcp.source_port(),
                destination: tcp.destination_port(),
            },
            Some(TransportSlice::Udp(udp)) => Transport::Udp {
                source: udp.source_port(),
                destination: udp.destination_port(),
                checksum: udp.checksum(),
            },
            None if ip.protocol == Protocol::Sctp.number() => match *ip.payload {
                [s0, s1, d0, d1, ..] => Transport::Sctp {
                    source: u16::from_be_bytes([s0, s1]),
                    destination: u16::from_be_bytes([d0, d1]),
                },
                _ => Transport::Other,
            },
            _ => Transport::Other,
        };
        Some(Self {
            source_mac: Mac(ethernet.source()),
            destination_mac: Mac(ethernet.destination()),
            source: ip.source,
            destination: ip.destination,
            ip_options,
            protocol: ip.protocol,
            payload: ip.payload.to_vec(),
            transport,
        })
    }

    /// The maximum segment size that a SYN or SYN-ACK offers, if any.
    pub fn segment_size(&self) -> Option<u16> {
        let Transport::Tcp { .. } = self.transport else {
            return None;
        };
        let segment = TcpSlice::from_slice(&self.payload).ok()?;
        if !segment.syn() {
            return None;
        }
        segment
            .options_iterator()
            .map_while(Result::ok)
            .find_map(|option| match option {
                TcpOptionElement::MaximumSegmentSize(size) => Some(size),
                _ => None,
            })
    }

    /// Whether `address` is the source or the destination.
    pub fn involves(&self, address: IpAddr) -> bool {
        self.source == address || self.destination == address
    }
}

/// The fields of an IP header of either family, and the payload after any extension headers.
pub(crate) struct IpLayer<'p> {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) payload: &'p [u8],
}

impl<'p> IpLayer<'p> {
    pub(crate) fn of(net: &LaxNetSlice<'p>) -> Option<Self> {
        let of = |source, destination, payload: &LaxIpPayloadSlice<'p>| Self {
            source,
            destination,
            protocol: payload.ip_number.0,
            payload: payload.payload,
        };
        match net {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                let (source, destination) = (header.source_addr(), header.destination_addr());
                Some(of(source.into(), destination.into(), ip.payload()))
            }
            LaxNetSlice::Ipv6(ip) => {
                let header = ip.header();
                let (source, destination) = (header.source_addr(), header.destination_addr());
                Some(of(source.into(), destination.into(), ip.payload()))
            }
            LaxNetSlice::Arp(_) => None,
        }
    }
}
