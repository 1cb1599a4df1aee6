//! `spec.addresses`: the reserved addresses and their gateways.

use std::net::IpAddr;

use super::destination::{self, unusable};
use super::error::SpecError;
use super::model::Address;
use super::prefix::{Family, IpPrefix};
use super::reader::{Located, Object, Path, Reader};

const AT_LEAST_ONE: &str = "at least one reserved source address";
const OWN: &str = "the router's own unicast address";
const PREFIX: &str = "an address with its subnet's prefix length";

/// The router's own addresses, as far as they could be read.
#[derive(Debug, Default)]
pub(super) struct OwnAddresses {
    readable: Vec<(Path, Address)>,
    /// Whether there is an address that could not be read, and that may be of either family.
    is_partial: bool,
}

impl OwnAddresses {
    /// The first address that `matches`, and its path.
    pub fn find(&self, matches: impl Fn(IpPrefix) -> bool) -> Option<(&Path, IpPrefix)> {
        self.readable
            .iter()
            .map(|(path, own)| (path, own.ip))
            .find(|(_, ip)| matches(*ip))
    }

    /// Whether nothing of this family can leave, for certain.
    pub fn lacks(&self, family: Family) -> bool {
        !self.is_partial && self.find(|ip| ip.family() == family).is_none()
    }

    /// The addresses, if all of them could be read.
    pub fn into_addresses(self) -> Option<Vec<Address>> {
        (!self.is_partial).then(|| self.readable.into_iter().map(|(_, own)| own).collect())
    }
}

/// Reads all addresses of the spec.
pub(super) fn read<'n>(reader: &mut Reader<'n>, spec: &Object<'n>) -> OwnAddresses {
    let mut own = OwnAddresses {
        readable: Vec::new(),
        is_partial: true,
    };
    let Some(place) = reader.required(spec, "addresses", AT_LEAST_ONE) else {
        return own;
    };
    let Some(items) = reader.list(&place, "objects with ip and gateway") else {
        return own;
    };
    if items.is_empty() {
        reader.error(place.instead("empty", AT_LEAST_ONE));
        return own;
    }
    own.is_partial = false;
    for item in &items {
        match read_one(reader, item) {
            Some(address) => {
                unique(reader, item, address.ip, &own);
                own.readable.push((item.path.clone(), address));
            }
            None => own.is_partial = true,
        }
    }
    own
}

fn read_one<'n>(reader: &mut Reader<'n>, item: &Located<'n>) -> Option<Address> {
    let object = reader.object(item, &["ip", "gateway"])?;
    let ip = reader
        .required(&object, "ip", PREFIX)
        .and_then(|place| prefix(reader, &place));
    let gateway_place = reader.optional(&object, "gateway");
    let gateway = gateway_place
        .as_ref()
        .and_then(|place| destination::address(reader, place));
    let ip = ip?;
    if let (Some(place), Some(gateway)) = (gateway_place, gateway)
        && let Some(error) = wrong_gateway(&place, gateway, ip)
    {
        reader.error(error);
    }
    Some(Address { ip, gateway })
}

/// One address of each family: the router has one source address to translate to.
fn unique<'n>(reader: &mut Reader<'n>, item: &Located<'n>, ip: IpPrefix, own: &OwnAddresses) {
    let family = ip.family();
    let path = item.path.field("ip");
    if let Some((first, _)) = own.find(|other| other.address == ip.address) {
        reader.error(SpecError::instead(
            path,
            format!("{} is given already ({first}.ip)", ip.address),
            "each address once",
        ));
    } else if let Some((first, _)) = own.find(|other| other.family() == family) {
        reader.error(SpecError::instead(
            path,
            format!("{ip} is a second {family} address ({first}.ip is the first)"),
            "at most one address of each family",
        ));
    }
}

fn prefix<'n>(reader: &mut Reader<'n>, place: &Located<'n>) -> Option<IpPrefix> {
    let text = reader.text(place, PREFIX)?;
    let ip = match parse_prefix(place, text) {
        Ok(ip) => ip,
        Err(error) => {
            reader.error(error);
            return None;
        }
    };
    if let Some(kind) = unusable(ip.address) {
        reader.error(place.instead(format!("{} is {kind}", ip.address), OWN));
        return None;
    }
    // The subnet is known, so that the gateway can be checked all the same.
    if let Some(kind) = edge(ip) {
        reader.error(place.instead(format!("{} is {kind} of {}", ip.address, subnet(ip)), OWN));
    }
    Some(ip)
}

fn parse_prefix(place: &Located<'_>, text: &str) -> Result<IpPrefix, SpecError> {
    let Some((address, length)) = text.split_once('/') else {
        let error = place.is_not(PREFIX);
        return Err(match text.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => error.help(format!("add it, such as {address}/24")),
            Ok(IpAddr::V6(address)) => error.help(format!("add it, such as {address}/64")),
            Err(_) => error.help("such as 192.168.12.99/24"),
        });
    };
    let Ok(address) = address.parse::<IpAddr>() else {
        return Err(place.is_not(PREFIX).help("such as 192.168.12.99/24"));
    };
    let family = Family::of(address);
    let bits = family.bits();
    let is_number = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
    match length.parse::<u8>() {
        Ok(prefix_length) if is_number && (1..=bits).contains(&prefix_length) => Ok(IpPrefix {
            address,
            prefix_length,
        }),
        _ => {
            let expected = format!("a prefix length of {family} (1–{bits})");
            let found = format!(
                "/{}",
                length.chars().take(20).collect::<String>().escape_debug()
            );
            let error = SpecError::is_not(&place.path, found, expected);
            Err(match netmask(length) {
                Some(length) => error.help(format!("write {address}/{length}")),
                None => error,
            })
        }
    }
}

/// The prefix length of a mask such as 255.255.255.0.
fn netmask(text: &str) -> Option<u32> {
    let mask = text.parse::<std::net::Ipv4Addr>().ok()?.to_bits();
    (mask != 0 && mask.leading_ones() + mask.trailing_zeros() == u32::BITS)
        .then(|| mask.leading_ones())
}

/// What the address is, if it is not a host's in its subnet.
fn edge(ip: IpPrefix) -> Option<&'static str> {
    let has_edges = ip.prefix_length < ip.family().bits() - 1;
    if ip
        .broadcast()
        .is_some_and(|broadcast| broadcast == ip.address)
    {
        Some("the broadcast address")
    } else if has_edges && ip.network() == ip.address {
        // RFC 4291, section 2.6.1: every router of the subnet answers to it.
        Some(match ip.family() {
            Family::V4 => "the network address",
            Family::V6 => "the subnet-router anycast address",
        })
    } else {
        None
    }
}

fn subnet(ip: IpPrefix) -> IpPrefix {
    IpPrefix {
        address: ip.network(),
        ..ip
    }
}

/// Why `gateway` cannot be the next hop from `ip`.
fn wrong_gateway(place: &Located<'_>, gateway: IpAddr, ip: IpPrefix) -> Option<SpecError> {
    let family = Family::of(gateway);
    // IPv6 routers announce themselves by their link-local address, which is on every link (RFC 4861, section 4.2).
    let is_link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if family != ip.family() {
        return Some(place.instead(
            format!("{gateway} is {family}, and the address is {}", ip.family()),
            format!("a gateway of the same family as {ip}"),
        ));
    }
    if let Some(kind) = unusable(gateway).filter(|_| !is_link_local) {
        return Some(place.instead(format!("{gateway} is {kind}"), "the address of a router"));
    }
    if gateway == ip.address {
        return Some(place.instead(
            format!("{gateway} is the router's own address"),
            "the next hop's address",
        ));
    }
    if is_link_local || ip.is_single_address() {
        return None;
    }
    if !ip.contains(gateway) {
        return Some(place.instead(
            format!("{gateway} is outside of {}", subnet(ip)),
            format!("a gateway in the subnet of {ip}"),
        ));
    }
    // Routers of an IPv6 subnet do answer to its anycast address.
    let gateway_prefix = IpPrefix {
        address: gateway,
        ..ip
    };
    let kind = edge(gateway_prefix).filter(|_| family == Family::V4)?;
    Some(place.instead(
        format!("{gateway} is {kind} of {}", subnet(ip)),
        "the next hop's address",
    ))
}
