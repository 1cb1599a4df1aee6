//! Captured frames, and what tests look at in them.

use std::net::IpAddr;

use etherparse::{LaxNetSlice, LaxSlicedPacket, LinkSlice, TransportSlice};

use crate::namespace::Mac;

/// A captured Ethernet frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Whether this host sent it (and did not receive it).
    pub outgoing: bool,
    /// The frame from its destination MAC address on, without checksum.
    pub bytes: Vec<u8>,
}

impl Frame {
    /// The IP packet in it, if it is one.
    pub fn packet(&self) -> Option<Packet> {
        Packet::parse(&self.bytes)
    }
}

/// An IP packet, and the Ethernet addresses that it came with.
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
    /// The IPv4 options; none of IPv6.
    pub ip_options: Vec<u8>,
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
        /// The checksum field; 0 says that there is none.
        checksum: u16,
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
        let (source, destination, ip_options): (IpAddr, IpAddr, _) = match packet.net? {
            LaxNetSlice::Ipv4(ip) => {
                let header = ip.header();
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                    header.options().to_vec(),
                )
            }
            LaxNetSlice::Ipv6(ip) => {
                let header = ip.header();
                (
                    header.source_addr().into(),
                    header.destination_addr().into(),
                    Vec::new(),
                )
            }
            LaxNetSlice::Arp(_) => return None,
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
            _ => Transport::Other,
        };
        Some(Self {
            source_mac: Mac(ethernet.source()),
            destination_mac: Mac(ethernet.destination()),
            source,
            destination,
            ip_options,
            transport,
        })
    }

    /// Whether either end is `address`.
    pub fn involves(&self, address: IpAddr) -> bool {
        self.source == address || self.destination == address
    }
}
