//! Single addresses: what they look like, and which of them traffic can go to.

use std::net::{IpAddr, SocketAddr};

use super::address::OwnAddresses;
use super::node::Node;
use super::prefix::Family;
use super::reader::{Located, Reader};

const ADDRESS: &str = "an IP address";

/// Reads a single address without a judgement on it.
pub(super) fn address<'n>(reader: &mut Reader<'n>, place: &Located<'n>) -> Option<IpAddr> {
    let Node::Text(text) = place.node else {
        reader.error(place.is_not(ADDRESS).help("such as 203.0.113.26"));
        return None;
    };
    let text = text.as_str();
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let error = place.is_not(ADDRESS);
    reader.error(match what_else(text) {
        Some(help) => error.help(help),
        None => error,
    });
    None
}

/// What to do about a text that is no address, by what it looks like.
fn what_else(text: &str) -> Option<String> {
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
            "one address is meant here and not a subnet, such as {address} without the prefix length"
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
            "leading zeros make a number octal for some, write {decimal} if that is meant"
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

/// Why nothing can be sent to, or from, an address: it is "a …".
pub(super) fn unusable(address: IpAddr) -> Option<&'static str> {
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

/// Reads an address that a rule or the fallback sends traffic to.
///
/// One that nothing can be sent to is an error, but still tells the address family.
pub(super) fn read<'n>(
    reader: &mut Reader<'n>,
    place: &Located<'n>,
    own: &OwnAddresses,
) -> Option<IpAddr> {
    let address = address(reader, place)?;
    judge(reader, place, address, own);
    Some(address)
}

fn judge<'n>(reader: &mut Reader<'n>, place: &Located<'n>, address: IpAddr, own: &OwnAddresses) {
    const EXPECTED: &str = "the unicast address of a server";
    let family = Family::of(address);
    let error = if let Some(kind) = unusable(address) {
        let error = place.instead(format!("{address} is {kind}"), EXPECTED);
        match address {
            IpAddr::V6(v6) => match v6.to_ipv4_mapped() {
                Some(v4) => error.help(format!("write {v4}")),
                None => error,
            },
            IpAddr::V4(_) => error,
        }
    } else if let Some((path, _)) = own.find(|own| own.address == address) {
        place.instead(
            format!("{address} is the router itself ({path}.ip)"),
            EXPECTED,
        )
    } else if let Some((path, own)) = own.find(|own| {
        own.broadcast()
            .is_some_and(|broadcast| broadcast == address || own.network() == address)
    }) {
        place.instead(
            format!("{address} is the broadcast or network address of {own} ({path}.ip)"),
            EXPECTED,
        )
    } else if own.lacks(family) {
        place
            .instead(
                format!("{address} is {family}, and spec.addresses has no {family} address to leave from"),
                "a destination of the same family as one of the router's addresses",
            )
            .help(format!("add an {family} address to spec.addresses"))
    } else {
        return;
    };
    reader.error(error);
}
