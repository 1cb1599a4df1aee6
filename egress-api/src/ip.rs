//! Single addresses: parsing, and the check that traffic can go to them.

use std::net::{IpAddr, SocketAddr};

use crate::node::Node;
use crate::reader::{Located, Reader};

const ADDRESS: &str = "an IP address";

/// Reads a single address of any kind.
pub(crate) fn read<'n>(reader: &mut Reader<'n>, place: &Located<'n>) -> Option<IpAddr> {
    let Node::Text(text) = place.node else {
        reader.error(place.is_not(ADDRESS).help("such as 203.0.113.26"));
        return None;
    };
    let text = text.as_str();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let error = place.is_not(ADDRESS);
    reader.error(match suggestion(text) {
        Some(help) => error.help(help),
        None => error,
    });
    None
}

/// Advice for a text that is not an address, by what it looks like.
fn suggestion(text: &str) -> Option<String> {
    let bare = text.trim().trim_start_matches('[').trim_end_matches(']');
    if bare != text && bare.parse::<IpAddr>().is_ok() {
        return Some(format!("write {bare}"));
    }
    if let Ok(socket) = text.parse::<SocketAddr>() {
        return Some(format!(
            "write {}, a server's port goes to targetPort",
            socket.ip()
        ));
    }
    if let Some((address, _)) = text.split_once('/')
        && let Ok(address) = address.parse::<IpAddr>()
    {
        return Some(format!(
            "an address is expected and not a subnet, such as {address} without the prefix length"
        ));
    }
    if let Some((address, _)) = text.split_once('%')
        && address.parse::<IpAddr>().is_ok()
    {
        return Some(
            "an address with a zone cannot be routed, give the server a global one".to_owned(),
        );
    }
    if let Some(decimal) = without_leading_zeros(text) {
        return Some(format!(
            "some programs read numbers with leading zeros as octal, write {decimal} if that is meant"
        ));
    }
    is_host_name(text)
        .then(|| "host names are not looked up, write the address of the server".to_owned())
}

fn without_leading_zeros(text: &str) -> Option<IpAddr> {
    let octets = text
        .split('.')
        .map(str::parse)
        .collect::<Result<Vec<u8>, _>>();
    Some(<[u8; 4]>::try_from(octets.ok()?).ok()?.into())
}

fn is_host_name(text: &str) -> bool {
    let text = text.strip_suffix('.').unwrap_or(text);
    text.bytes().any(|byte| byte.is_ascii_alphabetic())
        && text.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        })
}

/// What an address is if no packet can be sent to or from it, such as "a multicast address".
pub(crate) fn unusable(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => {
            if address.is_unspecified() {
                Some("the unspecified address")
            } else if address.is_loopback() {
                Some("a loopback address")
            } else if address.is_multicast() {
                Some("a multicast address")
            } else if address.is_broadcast() {
                Some("the broadcast address")
            } else {
                None
            }
        }
        IpAddr::V6(address) => {
            if address.is_unspecified() {
                Some("the unspecified address")
            } else if address.is_loopback() {
                Some("the loopback address")
            } else if address.is_multicast() {
                Some("a multicast address")
            } else if address.is_unicast_link_local() {
                Some("a link-local address")
            } else if address.to_ipv4_mapped().is_some() {
                Some("an IPv4 address written as IPv6")
            } else {
                None
            }
        }
    }
}
