//! What kind of packet it is, and its transport header.

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

/// What a packet is, as far as its headers say: what becomes of it depends on that first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketKind {
    /// It has a transport header, whose tuple finds its flow.
    Transport(TransportHeader),
    /// An ICMP error. The packet inside finds the flow.
    IcmpError,
    /// A fragment other than the first. The first one finds the flow.
    LaterFragment,
    /// It can belong to no flow: [`Outcome::OtherProtocol`] or [`Outcome::Malformed`].
    Untranslatable(Outcome),
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

/// [`PacketKind`] with each field in a place of its own, which always has a value.
///
/// An enum leaves the fields of its other variants undefined. The compiler may copy what is undefined, and verifiers up
/// to Linux 6.2 refuse to read it from the stack.
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
                // A large message (`GSO_BY_FRAGS`) has each of its packets' chunks in a buffer of its own, and to make
                // the first one contiguous with the header would cut it in two.
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

    /// What it means.
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
    /// Reads what follows `network`.
    ///
    /// # Errors
    ///
    /// [`Outcome::Truncated`] if the frame ends before the transport header does.
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
    /// Where a packet has what tells a genuine end: TCP's sequence number, SCTP's verification tag.
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

/// The transport header behind `network`.
#[inline(always)]
fn load<T: AnyBitPattern, A>(
    packet: &(impl Bytes + ?Sized),
    network: &NetworkHeader<A>,
) -> Result<T, Outcome> {
    packet
        .load(network.payload_offset)
        .ok_or(Outcome::Truncated)
}
