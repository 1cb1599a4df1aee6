//! The kind of a packet, and its transport header.

use core::mem::offset_of;

use bytemuck::{AnyBitPattern, NoUninit, Pod, Zeroable};

use crate::{
    bytes::Bytes,
    family::Family,
    fragment::Part,
    icmp,
    ip::NetworkHeader,
    network::{Ipv4Address, Ipv6Address, Pair, Port, Ports, protocol},
    outcome::Outcome,
    sctp, tcp,
};

/// The kind of a packet according to its headers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketKind {
    /// It has a transport header, whose tuple finds its flow.
    Transport(TransportHeader),
    /// An ICMP error. The inner packet identifies the flow.
    IcmpError,
    /// A later fragment. The first fragment identifies the flow.
    LaterFragment,
    /// A packet that cannot belong to a flow: [`Outcome::OtherProtocol`] or [`Outcome::Malformed`].
    Untranslatable(Outcome),
}

/// The contents of a transport header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransportHeader {
    /// Source and destination port. For an echo request, the source port is the identifier; for an echo reply, the
    /// destination port is. The other port is 0.
    pub ports: Ports,
    /// The TCP flags, or [their equivalents](sctp::flags) for the first SCTP chunk; none for other protocols.
    pub flags: tcp::Flags,
    /// The TCP acknowledgment number in network byte order; 0 for other protocols.
    pub acknowledgment: u32,
    /// `true` if the packet may open a flow.
    pub may_open: bool,
}

/// A TCP header without options (RFC 9293).
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

/// The length of an SCTP chunk header, whose first byte is the type (RFC 9260, section 3.2).
const SCTP_CHUNK_LEN: usize = 4;

/// An ICMP or ICMPv6 header (RFC 792, RFC 4443). Only echo messages have the identifier and sequence.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct IcmpHeader {
    /// The message type; see [`icmp::Kind`].
    pub message_type: u8,
    /// The code, which refines the type.
    pub code: u8,
    /// Checksum, as it lies in memory.
    pub checksum: u16,
    /// Echo: identifies the sender of a request.
    pub identifier: Port,
    /// Echo: identifies the request.
    pub sequence: u16,
}

impl IcmpHeader {
    /// The [ports](TransportHeader::ports) of an echo message.
    ///
    /// # Errors
    ///
    /// The kind of a message that is not an echo message.
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

// The kernel half also writes what it reads from a packet, so no byte of it may be uninitialised.
const _: () = assert!(offset_of!(TcpHeader, sequence) == offset_of!(SctpHeader, verification_tag));

const _: fn() = || {
    fn writable<T: NoUninit>() {}
    writable::<Ports>();
    writable::<Pair<Ipv4Address>>();
    writable::<Pair<Ipv6Address>>();
};

/// [`PacketKind`] with separate fields, all of which are always initialised.
///
/// An enum leaves the bytes of its other variants uninitialised. The compiler may copy those bytes, but verifiers up to
/// Linux 6.2 refuse to read them from the stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlatKind {
    /// `None` if there is a transport header.
    without: Option<Without>,
    transport: TransportHeader,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Without {
    IcmpError,
    LaterFragment,
    OtherProtocol,
    Malformed,
}

impl FlatKind {
    /// As [`PacketKind::read`].
    ///
    /// # Errors
    ///
    /// As there.
    #[inline(always)]
    pub fn read<F: Family>(
        packet: &(impl Bytes + ?Sized),
        network: &NetworkHeader<F::Address>,
    ) -> Result<Self, Outcome> {
        if matches!(network.part, Part::Later) {
            return Ok(Self::without(Without::LaterFragment));
        }
        let (ports, flags, acknowledgment, may_open) = match network.protocol {
            protocol::TCP => {
                if network.payload_len < size_of::<TcpHeader>() {
                    return Ok(Self::without(Without::Malformed));
                }
                let header: TcpHeader = load(packet, network)?;
                (
                    header.ports,
                    header.flags,
                    header.acknowledgment,
                    header.flags.may_open(),
                )
            }
            protocol::UDP => {
                if network.payload_len < size_of::<UdpHeader>() {
                    return Ok(Self::without(Without::Malformed));
                }
                let header: UdpHeader = load(packet, network)?;
                (header.ports, tcp::Flags(0), 0, true)
            }
            protocol::SCTP => {
                if network.payload_len < size_of::<SctpHeader>() + SCTP_CHUNK_LEN {
                    return Ok(Self::without(Without::Malformed));
                }
                let header: SctpHeader = load(packet, network)?;
                // In a large message (`GSO_BY_FRAGS`), the chunks of each packet lie in a buffer of their own.
                // Linearizing the first chunk would move part of it out of its buffer.
                let [kind, ..] = packet
                    .load_scattered(network.payload_offset + size_of::<SctpHeader>())
                    .ok_or(Outcome::Truncated)?;
                (header.ports, sctp::flags(kind), 0, sctp::may_open(kind))
            }
            protocol if protocol == F::ICMP => {
                if network.payload_len < size_of::<IcmpHeader>() {
                    return Ok(Self::without(Without::Malformed));
                }
                let header: IcmpHeader = load(packet, network)?;
                let is_request = F::icmp_kind(header.message_type) == icmp::Kind::EchoRequest;
                match header.echo_ports::<F>() {
                    Ok(ports) => (ports, tcp::Flags(0), 0, is_request),
                    Err(icmp::Kind::Error) => return Ok(Self::without(Without::IcmpError)),
                    Err(_) => return Ok(Self::without(Without::OtherProtocol)),
                }
            }
            _ => return Ok(Self::without(Without::OtherProtocol)),
        };
        Ok(Self {
            without: None,
            transport: TransportHeader {
                ports,
                flags,
                acknowledgment,
                may_open,
            },
        })
    }

    #[inline(always)]
    const fn without(reason: Without) -> Self {
        let none = Port::new(0);
        Self {
            without: Some(reason),
            transport: TransportHeader {
                ports: Ports {
                    source: none,
                    destination: none,
                },
                flags: tcp::Flags(0),
                acknowledgment: 0,
                may_open: false,
            },
        }
    }

    /// Converts to the enum.
    #[inline(always)]
    pub const fn kind(self) -> PacketKind {
        match self.without {
            None => PacketKind::Transport(self.transport),
            Some(Without::IcmpError) => PacketKind::IcmpError,
            Some(Without::LaterFragment) => PacketKind::LaterFragment,
            Some(Without::OtherProtocol) => PacketKind::Untranslatable(Outcome::OtherProtocol),
            Some(Without::Malformed) => PacketKind::Untranslatable(Outcome::Malformed),
        }
    }
}

impl PacketKind {
    /// Reads the header after `network`.
    ///
    /// # Errors
    ///
    /// [`Outcome::Truncated`] if the frame ends before the transport header.
    #[inline(always)]
    pub fn read<F: Family>(
        packet: &(impl Bytes + ?Sized),
        network: &NetworkHeader<F::Address>,
    ) -> Result<Self, Outcome> {
        FlatKind::read::<F>(packet, network).map(FlatKind::kind)
    }

    /// The transport header; `None` for a packet of another kind.
    #[inline(always)]
    pub const fn transport(self) -> Option<TransportHeader> {
        match self {
            Self::Transport(transport) => Some(transport),
            _ => None,
        }
    }
}

impl TransportHeader {
    /// The offset of the field that identifies a genuine end: the TCP sequence number, or the SCTP verification tag.
    pub const SEQUENCE_OR_TAG_OFFSET: usize = offset_of!(TcpHeader, sequence);

    /// The offset of the tag that an SCTP INIT or INIT ACK announces.
    pub const INITIATE_TAG_OFFSET: usize = size_of::<SctpHeader>() + SCTP_CHUNK_LEN;

    /// The offset of the checksum in this protocol's header.
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

/// The offset of the identifier in an echo message.
pub const ECHO_IDENTIFIER: usize = offset_of!(IcmpHeader, identifier);
/// The length of an ICMP error's header. The inner packet follows it.
pub const ICMP_HEADER_LEN: usize = size_of::<IcmpHeader>();

/// Reads the transport header after `network`.
#[inline(always)]
fn load<T: AnyBitPattern, A>(
    packet: &(impl Bytes + ?Sized),
    network: &NetworkHeader<A>,
) -> Result<T, Outcome> {
    packet
        .load(network.payload_offset)
        .ok_or(Outcome::Truncated)
}
