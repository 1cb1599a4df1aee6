//! The differences between the families outside the packets themselves.

use std::fmt;

use clap::ValueEnum;
use egress_tests::addresses::{Network, V4, V6};
use serde::Serialize;

/// An IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
pub enum Family {
    /// IPv4
    #[value(name = "4")]
    #[serde(rename = "4")]
    V4,
    /// IPv6
    #[value(name = "6")]
    #[serde(rename = "6")]
    V6,
}

impl Family {
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The lab's addresses.
    pub const fn network(self) -> Network {
        match self {
            Self::V4 => V4,
            Self::V6 => V6,
        }
    }

    /// The length of an IP header without options or extension headers.
    pub const fn header_len(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }

    /// The protocol number of ICMP.
    pub const fn icmp(self) -> u8 {
        match self {
            Self::V4 => 1,
            Self::V6 => 58,
        }
    }

    /// The Ethernet type.
    pub const fn ethertype(self) -> u16 {
        match self {
            Self::V4 => 0x0800,
            Self::V6 => 0x86dd,
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
