//! `spec.addresses`: the reserved addresses with their gateways, and how they are read.

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cidr::{self, CidrError};
use crate::error::SpecError;
use crate::family::Family;
use crate::field_schema;
use crate::ip::{self, unusable};
use crate::reader::{Located, Object, Path, Reader};

/// One of the router's own addresses on the external network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(inline)]
pub struct Address {
    /// The reserved source address with its subnet's prefix length, such as 192.168.12.99/24.
    #[schemars(with = "field_schema::Cidr")]
    pub ip: IpNet,
    /// The next hop towards everything outside of the subnet.
    #[schemars(with = "Option<field_schema::IpAddress>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

const AT_LEAST_ONE: &str = "at least one reserved source address";
const OWN: &str = "the router's own unicast address";
const PREFIX: &str = "an address with its subnet's prefix length";

/// The router's own addresses, as far as they are valid.
#[derive(Debug, Default)]
pub(crate) struct OwnAddresses {
    readable: Vec<(Path, Address)>,
    /// Whether an address could not be read. It may be of either family.
    is_partial: bool,
}

impl OwnAddresses {
    /// The path and value of the first address that `matches`.
    pub fn find(&self, matches: impl Fn(IpNet) -> bool) -> Option<(&Path, IpNet)> {
        self.readable
            .iter()
            .map(|(path, own)| (path, own.ip))
            .find(|(_, ip)| matches(*ip))
    }

    /// Whether there is certainly no address of this family.
    pub fn lacks(&self, family: Family) -> bool {
        !self.is_partial && self.find(|ip| Family::of(ip.addr()) == family).is_none()
    }

    /// All addresses; `None` if one could not be read.
    pub fn into_addresses(self) -> Option<Vec<Address>> {
        (!self.is_partial).then(|| self.readable.into_iter().map(|(_, own)| own).collect())
    }
}

/// Reads all addresses of the spec.
pub(crate) fn read<'n>(reader: &mut Reader<'n>, spec: &Object<'n>) -> OwnAddresses {
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
                check_unique(reader, item, address.ip, &own);
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
        .and_then(|place| ip::read(reader, place));
    let ip = ip?;
    if let (Some(place), Some(gateway)) = (gateway_place, gateway)
        && let Some(error) = wrong_gateway(&place, gateway, ip)
    {
        reader.error(error);
    }
    Some(Address { ip, gateway })
}

/// Checks that there is one address per family: the router translates to one source address.
fn check_unique<'n>(reader: &mut Reader<'n>, item: &Located<'n>, ip: IpNet, own: &OwnAddresses) {
    let family = Family::of(ip.addr());
    let path = item.path.field("ip");
    if let Some((first, _)) = own.find(|other| other.addr() == ip.addr()) {
        reader.error(SpecError::instead(
            path,
            format!("{} is given already ({first}.ip)", ip.addr()),
            "each address once",
        ));
    } else if let Some((first, _)) = own.find(|other| Family::of(other.addr()) == family) {
        reader.error(SpecError::instead(
            path,
            format!("{ip} is a second {family} address ({first}.ip is the first)"),
            "at most one address of each family",
        ));
    }
}

fn prefix<'n>(reader: &mut Reader<'n>, place: &Located<'n>) -> Option<IpNet> {
    let text = reader.text(place, PREFIX)?;
    let ip = match parse_prefix(place, text) {
        Ok(ip) => ip,
        Err(error) => {
            reader.error(error);
            return None;
        }
    };
    if let Some(kind) = unusable(ip.addr()) {
        reader.error(place.instead(format!("{} is {kind}", ip.addr()), OWN));
        return None;
    }
    // The subnet is known in spite of this error, so the gateway is still checked.
    if let Some(kind) = edge(ip) {
        reader.error(place.instead(format!("{} is {kind} of {}", ip.addr(), ip.trunc()), OWN));
    }
    Some(ip)
}

fn parse_prefix(place: &Located<'_>, text: &str) -> Result<IpNet, SpecError> {
    const EXAMPLE: &str = "such as 192.168.12.99/24";
    match cidr::parse(text) {
        Ok(ip) if ip.prefix_len() > 0 => Ok(ip),
        Ok(ip) => {
            let (_, length) = text.split_once('/').unwrap_or_default();
            Err(wrong_length(place, ip.addr(), length))
        }
        Err(CidrError::Length { address, length }) => Err(wrong_length(place, address, &length)),
        Err(CidrError::Address(_)) => Err(place.is_not(PREFIX).help(EXAMPLE)),
        Err(CidrError::NoLength(address)) => {
            let usual = match Family::of(address) {
                Family::V4 => 24,
                Family::V6 => 64,
            };
            let help = format!("add it, such as {address}/{usual}");
            Err(place.is_not(PREFIX).help(help))
        }
    }
}

fn wrong_length(place: &Located<'_>, address: IpAddr, length: &str) -> SpecError {
    let family = Family::of(address);
    let expected = format!("a prefix length of {family} (1–{})", family.bits());
    let shown: String = length.chars().take(20).collect();
    let error = SpecError::is_not(&place.path, format!("/{}", shown.escape_debug()), expected);
    match length
        .parse()
        .ok()
        .and_then(|mask| ipnet::ipv4_mask_to_prefix(mask).ok())
    {
        Some(length) if length > 0 => error.help(format!("write {address}/{length}")),
        _ => error,
    }
}

/// The directed broadcast address. Only IPv4 subnets shorter than /31 have one (RFC 3021).
pub(crate) fn broadcast(ip: IpNet) -> Option<Ipv4Addr> {
    match ip {
        IpNet::V4(ip) if ip.prefix_len() < 31 => Some(ip.broadcast()),
        _ => None,
    }
}

/// The role of the address in its subnet, if it is not a host address.
fn edge(ip: IpNet) -> Option<&'static str> {
    let has_edges = ip.prefix_len() < ip.max_prefix_len() - 1;
    if broadcast(ip).is_some_and(|broadcast| broadcast == ip.addr()) {
        Some("the broadcast address")
    } else if has_edges && ip.network() == ip.addr() {
        // RFC 4291, section 2.6.1: every router of the subnet answers to the subnet-router anycast address.
        Some(match Family::of(ip.addr()) {
            Family::V4 => "the network address",
            Family::V6 => "the subnet-router anycast address",
        })
    } else {
        None
    }
}

/// The error if `gateway` cannot be the next hop from `ip`.
fn wrong_gateway(place: &Located<'_>, gateway: IpAddr, ip: IpNet) -> Option<SpecError> {
    let family = Family::of(gateway);
    // IPv6 routers announce themselves with their link-local address (RFC 4861, section 4.2).
    let is_link_local = matches!(gateway, IpAddr::V6(v6) if v6.is_unicast_link_local());
    if family != Family::of(ip.addr()) {
        return Some(place.instead(
            format!(
                "{gateway} is {family}, and the address is {}",
                Family::of(ip.addr())
            ),
            format!("a gateway of the same family as {ip}"),
        ));
    }
    if let Some(kind) = unusable(gateway).filter(|_| !is_link_local) {
        return Some(place.instead(format!("{gateway} is {kind}"), "the address of a router"));
    }
    if gateway == ip.addr() {
        return Some(place.instead(
            format!("{gateway} is the router's own address"),
            "the next hop's address",
        ));
    }
    if is_link_local || ip.prefix_len() == ip.max_prefix_len() {
        return None;
    }
    if !ip.contains(&gateway) {
        return Some(place.instead(
            format!("{gateway} is outside of {}", ip.trunc()),
            format!("a gateway in the subnet of {ip}"),
        ));
    }
    // IPv6 is not checked: the anycast address of the subnet reaches a router.
    let kind = match IpNet::new(gateway, ip.prefix_len()) {
        Ok(gateway @ IpNet::V4(_)) => edge(gateway)?,
        _ => return None,
    };
    Some(place.instead(
        format!("{gateway} is {kind} of {}", ip.trunc()),
        "the next hop's address",
    ))
}
