//! Addresses and ports as they are on the wire.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytemuck::{Pod, Zeroable};

/// An IPv4 address, aligned so that the kernel half copies it as one word.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct Ipv4Address {
    /// The octets in the order in which they are written and sent.
    pub octets: [u8; 4],
}

/// An IPv6 address.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct Ipv6Address {
    /// The octets in the order in which they are written and sent.
    pub octets: [u8; 16],
}

/// A TCP, UDP or SCTP port.
#[repr(C, align(2))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct Port {
    /// High byte first, as on the wire.
    pub octets: [u8; 2],
}

impl Port {
    /// Converts from a number in host byte order.
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self {
            octets: number.to_be_bytes(),
        }
    }

    /// The port number in host byte order.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be_bytes(self.octets)
    }

    /// Returns `true` for port 0, which no service has.
    #[inline(always)]
    pub const fn is_zero(self) -> bool {
        u16::from_ne_bytes(self.octets) == 0
    }
}

impl From<Ipv4Addr> for Ipv4Address {
    fn from(address: Ipv4Addr) -> Self {
        Self {
            octets: address.octets(),
        }
    }
}

impl From<Ipv4Address> for Ipv4Addr {
    fn from(address: Ipv4Address) -> Self {
        Self::from(address.octets)
    }
}

impl From<Ipv6Addr> for Ipv6Address {
    fn from(address: Ipv6Addr) -> Self {
        Self {
            octets: address.octets(),
        }
    }
}

impl From<Ipv6Address> for Ipv6Addr {
    fn from(address: Ipv6Address) -> Self {
        Self::from(address.octets)
    }
}

impl From<Ipv4Address> for IpAddr {
    fn from(address: Ipv4Address) -> Self {
        Self::V4(address.into())
    }
}

impl From<Ipv6Address> for IpAddr {
    fn from(address: Ipv6Address) -> Self {
        Self::V6(address.into())
    }
}

/// The operations that the pipeline needs on an address of either family.
pub trait Address: Pod + Eq + 'static {
    /// The unfolded sum of the address's 16-bit words, for a checksum (RFC 1071).
    fn sum(&self) -> u32;

    /// Returns `true` for the unspecified address, which means "none" in the maps.
    fn is_unspecified(&self) -> bool;
}

/// The sum of the two 16-bit halves of a word.
#[inline(always)]
const fn halves(word: u32) -> u32 {
    (word & 0xffff) + (word >> 16)
}

impl Address for Ipv4Address {
    #[inline(always)]
    fn sum(&self) -> u32 {
        halves(bytemuck::cast(*self))
    }

    #[inline(always)]
    fn is_unspecified(&self) -> bool {
        bytemuck::cast::<_, u32>(*self) == 0
    }
}

impl Address for Ipv6Address {
    #[inline(always)]
    fn sum(&self) -> u32 {
        let [a, b, c, d]: [u32; 4] = bytemuck::cast(*self);
        halves(a) + halves(b) + halves(c) + halves(d)
    }

    #[inline(always)]
    fn is_unspecified(&self) -> bool {
        bytemuck::cast::<_, [u64; 2]>(self.octets) == [0, 0]
    }
}

/// Source and destination, adjacent as in every IP header.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pair<A> {
    /// Where the packet comes from.
    pub source: A,
    /// Where the packet goes.
    pub destination: A,
}

/// Source and destination port, adjacent as in every TCP, UDP and SCTP header.
#[repr(C, align(4))]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct Ports {
    /// The sender's port.
    pub source: Port,
    /// The receiver's port.
    pub destination: Port,
}

// SAFETY: two fields of one zeroable type.
unsafe impl<A: Zeroable> Zeroable for Pair<A> {}
// SAFETY: `repr(C)` with two fields of one `Pod` type has no padding.
unsafe impl<A: Pod> Pod for Pair<A> {}

impl<A: Address> Pair<A> {
    /// Swaps source and destination.
    #[inline(always)]
    #[must_use]
    pub fn swapped(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
        }
    }

    /// The unfolded sum of both addresses' 16-bit words.
    #[inline(always)]
    pub fn sum(&self) -> u32 {
        self.source.sum() + self.destination.sum()
    }
}

impl Ports {
    /// Swaps source and destination.
    #[inline(always)]
    #[must_use]
    pub fn swapped(self) -> Self {
        Self {
            source: self.destination,
            destination: self.source,
        }
    }

    /// The unfolded sum of both ports as 16-bit words.
    #[inline(always)]
    pub fn sum(&self) -> u32 {
        halves(bytemuck::cast(*self))
    }
}

/// IP protocol numbers, as in the 8-bit header field.
pub mod protocol {
    use network_types::ip::IpProto;

    /// Transmission Control Protocol (RFC 9293).
    pub const TCP: u8 = IpProto::Tcp as u8;
    /// User Datagram Protocol (RFC 768).
    pub const UDP: u8 = IpProto::Udp as u8;
    /// Stream Control Transmission Protocol (RFC 9260).
    pub const SCTP: u8 = IpProto::Sctp as u8;
    /// Internet Control Message Protocol (RFC 792).
    pub const ICMP: u8 = IpProto::Icmp as u8;
    /// Internet Control Message Protocol for IPv6 (RFC 4443).
    pub const ICMPV6: u8 = IpProto::Ipv6Icmp as u8;

    /// The usual name of a protocol that the router translates.
    pub const fn name(protocol: u8) -> Option<&'static str> {
        match protocol {
            TCP => Some("TCP"),
            UDP => Some("UDP"),
            SCTP => Some("SCTP"),
            ICMP => Some("ICMP"),
            ICMPV6 => Some("ICMPv6"),
            _ => None,
        }
    }
}
