//! Ethernet, IPv4 and IPv6 headers.

use bytemuck::{Pod, Zeroable};
use network_types::eth::EthHdr;

use crate::{
    bytes::Bytes,
    fragment::{Fragment, Part},
    network::{Address, Ipv4Address, Ipv6Address, Pair, Ports},
    outcome::Outcome,
    tuple::{Side, Tuple},
};

/// The length of an Ethernet header without VLAN tags. The kernel removes the tag before a TC program runs.
pub const ETHERNET_HEADER_LEN: usize = EthHdr::LEN;

/// An IPv4 header without options (RFC 791).
///
/// `network_types::ip::Ipv4Hdr` has single octets as fields. These fields let the kernel half read whole words.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ipv4Header {
    /// Version in the upper four bits, header length in 32-bit words in the lower four.
    pub version_ihl: u8,
    /// Differentiated services and ECN.
    pub tos: u8,
    /// Length of the header and payload, in network byte order.
    pub total_length: [u8; 2],
    /// Identification.
    pub id: [u8; 2],
    /// Flags and fragment offset, in network byte order.
    pub fragment: [u8; 2],
    /// Time to live, then the IP protocol number.
    pub ttl_protocol: [u8; 2],
    /// Header checksum, as it lies in memory.
    pub checksum: u16,
    /// Source and destination address.
    pub addresses: Pair<Ipv4Address>,
}

/// An IPv6 header (RFC 8200).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ipv6Header {
    /// Version, traffic class, flow label.
    pub version_class_flow: [u8; 4],
    /// Length of the payload, extension headers included, in network byte order.
    pub payload_length: [u8; 2],
    /// Protocol number of the next header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source and destination address.
    pub addresses: Pair<Ipv6Address>,
}

const _: () = assert!(size_of::<Ipv4Header>() == 20);
const _: () = assert!(size_of::<Ipv6Header>() == 40);

impl Ipv4Header {
    /// The header's fragment fields.
    #[inline(always)]
    pub const fn fragment(&self) -> Fragment {
        const MORE_FRAGMENTS: u16 = 0x2000;
        let field = u16::from_be_bytes(self.fragment);
        Fragment {
            id: u16::from_ne_bytes(self.id) as u32,
            offset: field << 3,
            more: field & MORE_FRAGMENTS != 0,
        }
    }

    /// Length of the header with its options, in bytes; `None` if this is not an IPv4 header.
    #[inline(always)]
    pub const fn header_len(&self) -> Option<usize> {
        let words = self.version_ihl & 0x0f;
        if self.version_ihl >> 4 != 4 || words < 5 {
            return None;
        }
        Some(words as usize * 4)
    }
}

/// The contents of an IP header of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkHeader<A> {
    /// Source and destination address.
    pub addresses: Pair<A>,
    /// Protocol number of the payload.
    pub protocol: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// The part of the packet that this is.
    pub part: Part,
    /// The offset of the payload from the start of the frame, after IPv4 options or IPv6 extension headers.
    pub payload_offset: usize,
    /// Length of the payload in bytes, according to the header.
    pub payload_len: usize,
}

impl<A> NetworkHeader<A> {
    /// Checks that the frame is as long as the IP header says.
    ///
    /// # Errors
    ///
    /// [`Outcome::Truncated`] if it is shorter.
    #[inline(always)]
    pub fn complete(self, packet: &(impl Bytes + ?Sized)) -> Result<Self, Outcome> {
        if self.payload_offset + self.payload_len > packet.len() {
            return Err(Outcome::Truncated);
        }
        Ok(self)
    }
}

impl<A: Address> NetworkHeader<A> {
    /// The tuple of a packet with these ports that arrived on `side`.
    #[inline(always)]
    pub const fn tuple(&self, side: Side, ports: Ports) -> Tuple<A> {
        Tuple::new(side, self.protocol, self.addresses, ports)
    }
}
