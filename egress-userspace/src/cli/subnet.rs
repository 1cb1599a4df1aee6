//! Addresses and subnets that options name.

use egress_api::cidr::{self, CidrError};
use ipnet::IpNet;

/// Reads an address, which stands for itself alone, or a subnet.
pub fn parse(text: &str) -> Result<IpNet, String> {
    cidr::parse_address_or_subnet(text).map_err(|error| match error {
        CidrError::Address(_) => {
            format!("{error}; expected such as 10.128.0.2 or 10.128.0.0/16")
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
