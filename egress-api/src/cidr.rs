//! Parses CIDR notation, for resources and for command lines.

use std::net::IpAddr;

use ipnet::IpNet;
use thiserror::Error;

use crate::family::Family;

/// Why a text is not in CIDR notation.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CidrError {
    /// The part before the slash, or the whole text, is not an address.
    #[error("{0:?} is not an IP address")]
    Address(String),
    /// The text is an address without a prefix length.
    #[error("{0} has no prefix length")]
    NoLength(IpAddr),
    /// The part after the slash is not a prefix length.
    #[error("{length:?} is not a prefix length (0–{})", Family::of(*.address).bits())]
    Length {
        /// The address, which is valid.
        address: IpAddr,
        /// The part after the slash.
        length: String,
    },
}

/// Parses an address with a prefix length, such as `192.168.12.99/24`. Keeps the host bits.
///
/// # Errors
///
/// The part that is wrong.
pub fn parse(text: &str) -> Result<IpNet, CidrError> {
    let (address, length) = match text.split_once('/') {
        Some((address, length)) => (address, Some(length)),
        None => (text, None),
    };
    let address: IpAddr = address
        .parse()
        .map_err(|_| CidrError::Address(address.to_owned()))?;
    let length = length.ok_or(CidrError::NoLength(address))?;
    let is_number = length.bytes().all(|byte| byte.is_ascii_digit());
    length
        .parse()
        .ok()
        .filter(|_| is_number)
        .and_then(|bits| IpNet::new(address, bits).ok())
        .ok_or_else(|| CidrError::Length {
            address,
            length: length.to_owned(),
        })
}

/// Parses a single address, or a subnet such as `10.128.0.0/16`.
///
/// # Errors
///
/// The part that is wrong.
pub fn parse_address_or_subnet(text: &str) -> Result<IpNet, CidrError> {
    match parse(text) {
        Err(CidrError::NoLength(address)) => Ok(address.into()),
        parsed => parsed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_alone_is_a_subnet_of_one() {
        let shown = |text| parse_address_or_subnet(text).map(|it| it.to_string());
        assert_eq!(shown("10.128.0.2").unwrap(), "10.128.0.2/32");
        assert_eq!(shown("fd00::1/64").unwrap(), "fd00::1/64");
        assert_eq!(shown("0.0.0.0/0").unwrap(), "0.0.0.0/0");
    }

    #[test]
    fn the_error_names_the_wrong_part() {
        let error = |text| parse(text).unwrap_err().to_string();
        assert_eq!(error("pod/24"), "\"pod\" is not an IP address");
        assert_eq!(error("10.0.0.1"), "10.0.0.1 has no prefix length");
        assert_eq!(error("10.0.0.0/33"), "\"33\" is not a prefix length (0–32)");
        assert_eq!(error("::/+1"), "\"+1\" is not a prefix length (0–128)");
        assert_eq!(error("::/"), "\"\" is not a prefix length (0–128)");
    }
}
