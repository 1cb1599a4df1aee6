//! Addresses and subnets in options.

use egress_api::cidr::{self, CidrError};
use ipnet::IpNet;

/// Parses a subnet, or an address as the subnet of only itself.
pub fn parse(text: &str) -> Result<IpNet, String> {
    cidr::parse_address_or_subnet(text).map_err(|error| match error {
        CidrError::Address(_) => {
            format!("{error}; expected a value such as 10.128.0.2 or 10.128.0.0/16")
        }
        error => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_what_is_expected() {
        assert!(parse("10.128.0.0/33").unwrap_err().contains("0–32"));
        assert!(parse("pod").unwrap_err().contains("10.128.0.0/16"));
    }
}
