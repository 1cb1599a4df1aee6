//! Reading a packet's headers.
//!
//! The kernel half reads packets in the kernel's memory, tests and fuzzers read slices: both through [`Bytes`].

use bytemuck::{AnyBitPattern, NoUninit, Pod, Zeroable};
use network_types::eth::EthHdr;

use crate::{
    network::{Ipv4Address, Pair, Ports, protocol},
    outcome::Outcome,
    tcp,
};

/// Length of an Ethernet header without VLAN tags, which the kernel takes off before a TC program runs.
pub const ETHERNET_HEADER_LEN: usize = EthHdr::LEN;

/// A frame that can be read from.
pub trait Bytes {
    /// The `T` at `offset`, or `None` if the frame ends before.
    fn load<T: AnyBitPattern>(&self, offset: usize) -> Option<T>;

    /// Length of the frame in bytes.
    fn len(&self) -> usize;

    /// Whether the frame has no bytes at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Bytes for [u8] {
    fn load<T: AnyBitPattern>(&self, offset: usize) -> Option<T> {
        let end = offset.checked_add(size_of::<T>())?;
        self.get(offset..end).map(bytemuck::pod_read_unaligned)
    }

    fn len(&self) -> usize {
        <[u8]>::len(self)
    }
}

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
    /// Time to live.
    pub ttl: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Header checksum, as it lies in memory.
    pub checksum: u16,
    /// Source and destination address.
    pub addresses: Pair<Ipv4Address>,
}

const _: () = assert!(size_of::<Ipv4Header>() == 20);

impl Ipv4Header {
    /// Set on every fragment but the last (RFC 791: MF).
    const MORE_FRAGMENTS: u16 = 0x2000;
    const FRAGMENT_OFFSET: u16 = 0x1fff;

    /// Whether this is one of several fragments.
    #[inline(always)]
    pub const fn is_fragment(&self) -> bool {
        u16::from_be_bytes(self.fragment) & (Self::MORE_FRAGMENTS | Self::FRAGMENT_OFFSET) != 0
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
    /// Protocol number of what follows.
    pub protocol: u8,
    /// Whether this is one of several fragments.
    pub is_fragment: bool,
    /// Where the payload begins, from the start of the frame.
    pub payload_offset: usize,
    /// Length of the payload in bytes.
    pub payload_len: usize,
}

/// What the transport header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportHeader {
    /// Source and destination port.
    pub ports: Ports,
    /// TCP's flags; none for another protocol.
    pub flags: tcp::Flags,
}

/// The part of a TCP header that counts here (RFC 9293).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TcpHeader {
    ports: Ports,
    sequence: u32,
    acknowledgment: u32,
    data_offset: u8,
    flags: tcp::Flags,
    window: u16,
    checksum: u16,
    urgent: u16,
}

/// A UDP header (RFC 768).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct UdpHeader {
    ports: Ports,
    length: u16,
    checksum: u16,
}

// What is read from a packet is also written to one: no field may be uninitialised.
const _: fn() = || {
    fn writable<T: NoUninit>() {}
    writable::<Ports>();
    writable::<Pair<Ipv4Address>>();
};

impl TransportHeader {
    /// Reads the transport header that follows `network`.
    ///
    /// # Errors
    ///
    /// [`Outcome::Fragment`], [`Outcome::OtherProtocol`], or [`Outcome::Truncated`] if the frame or the IP packet ends
    /// too early.
    #[inline(always)]
    pub fn read<A>(
        packet: &(impl Bytes + ?Sized),
        network: &NetworkHeader<A>,
    ) -> Result<Self, Outcome> {
        if network.is_fragment {
            return Err(Outcome::Fragment);
        }
        match network.protocol {
            protocol::TCP => {
                let header: TcpHeader = load(packet, network)?;
                Ok(Self {
                    ports: header.ports,
                    flags: header.flags,
                })
            }
            protocol::UDP => {
                let header: UdpHeader = load(packet, network)?;
                Ok(Self {
                    ports: header.ports,
                    flags: tcp::Flags(0),
                })
            }
            _ => Err(Outcome::OtherProtocol),
        }
    }

    /// Where the checksum stands in the header of this protocol.
    #[inline(always)]
    pub const fn checksum_offset(protocol: u8) -> usize {
        if protocol == protocol::TCP {
            core::mem::offset_of!(TcpHeader, checksum)
        } else {
            core::mem::offset_of!(UdpHeader, checksum)
        }
    }
}

/// The transport header behind `network`, if it lies within both the IP packet and the frame.
#[inline(always)]
fn load<T: AnyBitPattern, A>(
    packet: &(impl Bytes + ?Sized),
    network: &NetworkHeader<A>,
) -> Result<T, Outcome> {
    if network.payload_len < size_of::<T>() {
        return Err(Outcome::Malformed);
    }
    packet
        .load(network.payload_offset)
        .ok_or(Outcome::Truncated)
}
