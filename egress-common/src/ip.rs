//! The headers of Ethernet, IPv4 and IPv6.

use bytemuck::{Pod, Zeroable};
use network_types::eth::EthHdr;

use crate::{
    bytes::Bytes,
    fragment::{Fragment, Part},
    network::{Address, Ipv4Address, Ipv6Address, Pair, Ports},
    outcome::Outcome,
    tuple::{Side, Tuple},
};

/// Length of an Ethernet header without VLAN tags, which the kernel takes off before a TC program runs.
pub const ETHERNET_HEADER_LEN: usize = EthHdr::LEN;

/// An IPv4 header without options (RFC 791).
///
/// `network_types::ip::Ipv4Hdr` has the same fields as single octets; with these the kernel half reads whole words.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Ipv4Header {
    /// Version in the upper half, header length in 32-bit words in the lower.
    pub version_ihl: u8,
    /// Differentiated services and ECN.
    pub tos: u8,
    /// Length of header and payload, network byte order.
    pub total_length: [u8; 2],
    /// Identification.
    pub id: [u8; 2],
    /// Flags and fragment offset, network byte order.
    pub fragment: [u8; 2],
    /// Time to live, and then the IP protocol number.
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
    /// Length of what follows this header, network byte order.
    pub payload_length: [u8; 2],
    /// Protocol of what follows this header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source and destination address.
    pub addresses: Pair<Ipv6Address>,
}

const _: () = assert!(size_of::<Ipv4Header>() == 20);
const _: () = assert!(size_of::<Ipv6Header>() == 40);

impl Ipv4Header {
    /// What the header says of fragments.
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

    /// Length of the header with its options, in bytes; `None` if it is not an IPv4 header.
    #[inline(always)]
    pub const fn header_len(&self) -> Option<usize> {
        let words = self.version_ihl & 0x0f;
        if self.version_ihl >> 4 != 4 || words < 5 {
            return None;
        }
        Some(words as usize * 4)
    }
}

/// What the IP header says, of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkHeader<A> {
    /// Source and destination address.
    pub addresses: Pair<A>,
    /// Protocol number of the payload.
    pub protocol: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    /// Which part of its packet this is.
    pub part: Part,
    /// Where the payload begins, from the start of the frame: behind IPv4 options or IPv6 extension headers.
    pub payload_offset: usize,
    /// Length of the payload in bytes, by the header's word.
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
    /// The tuple of the packet, which arrived on `side` and has these ports.
    #[inline(always)]
    pub const fn tuple(&self, side: Side, ports: Ports) -> Tuple<A> {
        Tuple::new(side, self.protocol, self.addresses, ports)
    }
}
