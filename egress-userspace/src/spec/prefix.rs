//! An address together with the subnet it lives in.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::schema::{IPV4_PATTERN, IPV6_PATTERN};

/// The address family: rules, flows and reserved addresses never cross it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Family {
    /// IPv4
    V4,
    /// IPv6
    V6,
}

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The bits of an address: 32 or 128.
    pub const fn bits(self) -> u8 {
        match self {
            Self::V4 => 32,
            Self::V6 => 128,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        })
    }
}

/// An address and its subnet's prefix length, written `192.168.12.99/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct IpPrefix {
    /// The address itself, host bits included.
    pub address: IpAddr,
    /// 1 to 32 or 1 to 128.
    pub prefix_length: u8,
}

impl IpPrefix {
    /// The address family.
    pub const fn family(self) -> Family {
        Family::of(self.address)
    }

    /// The lowest address of the subnet: the network address of IPv4, the subnet-router anycast address of IPv6
    /// (RFC 4291, section 2.6.1).
    pub fn network(self) -> IpAddr {
        match self.address {
            IpAddr::V4(address) => {
                Ipv4Addr::from_bits(address.to_bits() & !self.host_mask_v4()).into()
            }
            IpAddr::V6(address) => {
                Ipv6Addr::from_bits(address.to_bits() & !self.host_mask_v6()).into()
            }
        }
    }

    /// The directed broadcast address: IPv4 only, and only where the subnet is large enough to have one (RFC 3021).
    pub fn broadcast(self) -> Option<Ipv4Addr> {
        match self.address {
            IpAddr::V4(address) if self.prefix_length < 31 => {
                Some(Ipv4Addr::from_bits(address.to_bits() | self.host_mask_v4()))
            }
            _ => None,
        }
    }

    /// Whether `address` is in the same subnet.
    pub fn contains(self, address: IpAddr) -> bool {
        self.family() == Family::of(address) && self.network() == Self { address, ..self }.network()
    }

    /// Whether this is a host route's prefix, a subnet of one address.
    pub const fn is_single_address(self) -> bool {
        self.prefix_length >= self.family().bits()
    }

    fn host_mask_v4(self) -> u32 {
        u32::MAX.checked_shr(self.prefix_length.into()).unwrap_or(0)
    }

    fn host_mask_v6(self) -> u128 {
        u128::MAX
            .checked_shr(self.prefix_length.into())
            .unwrap_or(0)
    }
}

impl fmt::Display for IpPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_length)
    }
}

impl Serialize for IpPrefix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for IpPrefix {
    fn schema_name() -> Cow<'static, str> {
        "IpPrefix".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "anyOf": [
                { "pattern": format!("^{IPV4_PATTERN}/([1-9]|[12][0-9]|3[0-2])$") },
                { "pattern": format!("^{IPV6_PATTERN}/([1-9]|[1-9][0-9]|1[01][0-9]|12[0-8])$") },
            ],
        })
    }
}
