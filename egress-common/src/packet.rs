//! Reading a packet's headers.
//!
//! The kernel half reads packets in the kernel's memory, tests and fuzzers read slices: both through [`Bytes`].

use core::mem::offset_of;

use bytemuck::{AnyBitPattern, NoUninit, Pod, Zeroable};
use network_types::eth::EthHdr;

use crate::{
    extension,
    family::Family,
    fragment::{Fragment, Part},
    icmp,
    network::{Ipv4Address, Ipv6Address, Pair, Port, Ports, protocol},
    outcome::Outcome,
    sctp, tcp,
};

/// Length of an Ethernet header without VLAN tags, which the kernel takes off before a TC program runs.
pub const ETHERNET_HEADER_LEN: usize = EthHdr::LEN;

/// A frame that can be read from.
pub trait Bytes {
    /// The `T` at `offset`, or `None` if the frame ends before.
    fn load<T: AnyBitPattern>(&self, offset: usize) -> Option<T>;

    /// The word at `offset`, without making anything of the frame contiguous where it is not.
    #[inline(always)]
    fn load_scattered(&self, offset: usize) -> Option<[u8; 4]> {
        self.load(offset)
    }

    /// Length of the frame in bytes.
    fn len(&self) -> usize;

    /// Goes from the first IPv6 extension header to what follows the last one: [`extension::walk`], unless the frame has
    /// a cheaper way.
    ///
    /// # Errors
    ///
    /// As [`extension::walk`].
    fn skip_extensions(&self, place: extension::Place) -> Result<extension::Place, Outcome> {
        extension::walk(self, place)
    }

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

/// What the transport header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportHeader {
    /// Source and destination port. An echo request has its identifier for a source port, an echo reply for a
    /// destination port; the other one is 0.
    pub ports: Ports,
    /// TCP's flags, or [those that SCTP's first chunk stands for](sctp::flags); none for another protocol.
    pub flags: tcp::Flags,
    /// TCP's acknowledgment number; else 0. Network byte order.
    pub acknowledgment: u32,
    /// Whether the packet may start a flow.
    pub may_open: bool,
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

/// An SCTP common header (RFC 9260, section 3.1).
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct SctpHeader {
    ports: Ports,
    verification_tag: u32,
    checksum: u32,
}

/// The length of the header of an SCTP chunk, which begins with its type (RFC 9260, section 3.2).
const SCTP_CHUNK_LEN: usize = 4;

/// An ICMP or ICMPv6 header (RFC 792, RFC 4443); the identifier is there in echo messages only.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct IcmpHeader {
    /// What the message is: see [`icmp::Kind`].
    pub message_type: u8,
    /// What it is in particular.
    pub code: u8,
    /// Checksum, as it lies in memory.
    pub checksum: u16,
    /// Tells one echo request's sender from another's.
    pub identifier: Port,
    /// Tells one echo request from another.
    pub sequence: u16,
}

impl IcmpHeader {
    /// The ports of an echo message, see [`TransportHeader::ports`]; else what the message is for.
    ///
    /// # Errors
    ///
    /// The kind of a message that is no echo.
    #[inline(always)]
    pub fn echo_ports<F: Family>(&self) -> Result<Ports, icmp::Kind> {
        let none = Port::new(0);
        match F::icmp_kind(self.message_type) {
            icmp::Kind::EchoRequest => Ok(Ports {
                source: self.identifier,
                destination: none,
            }),
            icmp::Kind::EchoReply => Ok(Ports {
                source: none,
                destination: self.identifier,
            }),
            other => Err(other),
        }
    }
}

// What is read from a packet is also written to one: no field may be uninitialised.
const _: () = assert!(offset_of!(TcpHeader, sequence) == offset_of!(SctpHeader, verification_tag));

const _: fn() = || {
    fn writable<T: NoUninit>() {}
    writable::<Ports>();
    writable::<Pair<Ipv4Address>>();
    writable::<Pair<Ipv6Address>>();
};

impl TransportHeader {
    /// Reads the transport header that follows `network`.
    ///
    /// # Errors
    ///
    /// [`Outcome::Fragment`] for another than the first, [`Outcome::OtherProtocol`], or [`Outcome::Truncated`] or [`Outcome::Malformed`] if the
    /// frame or the IP packet ends too early. For an ICMP error message it is [`Outcome::UnrelatedIcmpError`], which it
    /// is unless the flow that it tells of is found.
    #[inline(always)]
    pub fn read<F: Family>(
        packet: &(impl Bytes + ?Sized),
        network: &NetworkHeader<F::Address>,
    ) -> Result<Self, Outcome> {
        if matches!(network.part, Part::Later) {
            return Err(Outcome::Fragment);
        }
        let (ports, flags, acknowledgment, may_open) = match network.protocol {
            protocol::TCP => {
                let header: TcpHeader = load(packet, network)?;
                (
                    header.ports,
                    header.flags,
                    header.acknowledgment,
                    header.flags.may_open(),
                )
            }
            protocol::UDP => {
                let header: UdpHeader = load(packet, network)?;
                (header.ports, tcp::Flags(0), 0, true)
            }
            protocol::SCTP => {
                let header: SctpHeader = load(packet, network)?;
                if network.payload_len < size_of::<SctpHeader>() + SCTP_CHUNK_LEN {
                    return Err(Outcome::Malformed);
                }
                // A large message (`GSO_BY_FRAGS`) has each of its packets' chunks in a buffer of its own, and to make
                // the first one contiguous with the header would cut it in two.
                let [kind, ..] = packet
                    .load_scattered(network.payload_offset + size_of::<SctpHeader>())
                    .ok_or(Outcome::Truncated)?;
                (header.ports, sctp::flags(kind), 0, sctp::may_open(kind))
            }
            protocol if protocol == F::ICMP => {
                let header: IcmpHeader = load(packet, network)?;
                let is_request = F::icmp_kind(header.message_type) == icmp::Kind::EchoRequest;
                match header.echo_ports::<F>() {
                    Ok(ports) => (ports, tcp::Flags(0), 0, is_request),
                    Err(icmp::Kind::Error) => return Err(Outcome::UnrelatedIcmpError),
                    Err(_) => return Err(Outcome::OtherProtocol),
                }
            }
            _ => return Err(Outcome::OtherProtocol),
        };
        Ok(Self {
            ports,
            flags,
            acknowledgment,
            may_open,
        })
    }

    /// Where a packet has the number by which its end is known for genuine: TCP's sequence number, SCTP's verification tag.
    pub const SEQUENCE_OR_TAG_OFFSET: usize = offset_of!(TcpHeader, sequence);

    /// Where INIT and INIT ACK of SCTP announce a tag.
    pub const INITIATE_TAG_OFFSET: usize = size_of::<SctpHeader>() + SCTP_CHUNK_LEN;

    /// Where the checksum stands in the header of this protocol.
    #[inline(always)]
    pub const fn checksum_offset(protocol: u8) -> usize {
        match protocol {
            protocol::TCP => offset_of!(TcpHeader, checksum),
            protocol::UDP => offset_of!(UdpHeader, checksum),
            protocol::SCTP => offset_of!(SctpHeader, checksum),
            _ => offset_of!(IcmpHeader, checksum),
        }
    }
}

/// Where an echo message has its identifier.
pub const ECHO_IDENTIFIER: usize = offset_of!(IcmpHeader, identifier);
/// Length of the header of an ICMP error, which the packet that caused it follows.
pub const ICMP_HEADER_LEN: usize = size_of::<IcmpHeader>();

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
