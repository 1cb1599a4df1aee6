//! A redirect rule: the type in the resource, its reader, and its row in the rule table.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use schemars::JsonSchema;
use serde::Serialize;

use crate::address::OwnAddresses;
use crate::destination;
use crate::error::SpecError;
use crate::family::Family;
use crate::field_schema;
use crate::node::Node;
use crate::protocol::Protocol;
use crate::reader::{Located, Path, Reader};

/// The names of a rule's fields.
pub(crate) const FIELDS: [&str; 4] = ["destinationIP", "port", "protocol", "targetPort"];
const PORT: &str = "a port (1–65535)";

/// Sends what arrives on a port of the router to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(inline)]
pub struct RedirectRule {
    /// The server's IPv4 or IPv6 address. Clients reach the rule over the same family.
    #[serde(rename = "destinationIP")]
    #[schemars(with = "field_schema::IpAddress")]
    pub destination_ip: IpAddr,
    /// The port that clients connect to, on the router.
    #[schemars(with = "field_schema::Port")]
    pub port: NonZeroU16,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The server's port. Left out: the port that clients connect to.
    #[schemars(with = "Option<field_schema::Port>")]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_port: Option<NonZeroU16>,
}

impl RedirectRule {
    /// The server's port: `targetPort`, or the port that clients connect to.
    pub fn destination_port(&self) -> NonZeroU16 {
        self.target_port.unwrap_or(self.port)
    }

    /// The address family that the rule applies to.
    pub const fn family(&self) -> Family {
        Family::of(self.destination_ip)
    }
}

/// Port and protocol → destination and target port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rule {
    /// The transport protocol.
    pub protocol: Protocol,
    /// The router's port, where clients connect.
    pub port: NonZeroU16,
    /// The server. Its family is the rule's.
    pub destination: IpAddr,
    /// The server's port.
    pub target_port: NonZeroU16,
}

impl From<&RedirectRule> for Rule {
    fn from(rule: &RedirectRule) -> Self {
        // Every field by name: a new one does not compile until it has its place here.
        let RedirectRule {
            destination_ip,
            port,
            protocol,
            target_port: _,
        } = *rule;
        Self {
            protocol,
            port,
            destination: destination_ip,
            target_port: rule.destination_port(),
        }
    }
}

/// What a rule matches: no two rules may have the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    port: NonZeroU16,
    protocol: Protocol,
    family: Family,
}

/// Reads a rule.
pub(crate) fn read<'n>(
    reader: &mut Reader<'n>,
    item: &Located<'n>,
    own: &OwnAddresses,
    taken: &mut HashMap<Key, Path>,
) -> Option<RedirectRule> {
    let object = reader.object(item, &FIELDS)?;
    let destination = reader
        .required(&object, "destinationIP", "the IP address of a server")
        .and_then(|place| destination::read(reader, &place, own));
    let own_port = reader
        .required(&object, "port", PORT)
        .and_then(|place| port(reader, &place));
    let protocol = reader
        .required(&object, "protocol", "TCP, UDP or SCTP")
        .and_then(|place| {
            let protocols = Protocol::ALL.map(|protocol| (protocol.name(), protocol));
            reader.choice(&place, "a protocol", &protocols)
        });
    let target_port = match reader.optional(&object, "targetPort") {
        Some(place) => port(reader, &place).map(Some),
        None => Some(None),
    };
    let (destination_ip, port, protocol) = (destination?, own_port?, protocol?);
    let key = Key {
        port,
        protocol,
        family: Family::of(destination_ip),
    };
    check_unique(reader, item, key, taken);
    Some(RedirectRule {
        destination_ip,
        port,
        protocol,
        target_port: target_port?,
    })
}

fn check_unique<'n>(
    reader: &mut Reader<'n>,
    item: &Located<'n>,
    key: Key,
    taken: &mut HashMap<Key, Path>,
) {
    match taken.get(&key) {
        Some(first) => reader.error(SpecError::instead(
            &item.path,
            format!(
                "{}/{} over {} is already taken by {first}",
                key.port, key.protocol, key.family
            ),
            "one rule for each port, protocol and address family",
        )),
        None => {
            taken.insert(key, item.path.clone());
        }
    }
}

fn port<'n>(reader: &mut Reader<'n>, place: &Located<'n>) -> Option<NonZeroU16> {
    let error = match place.node {
        Node::Integer(number) => {
            let port = u16::try_from(*number).ok().and_then(NonZeroU16::new);
            if port.is_some() {
                return port;
            }
            place.is_not(PORT)
        }
        Node::Text(text) => quoted_port(place, text),
        Node::List(_) => place
            .is_not(PORT)
            .help("a rule takes one port, write a rule for each"),
        _ => place.is_not(PORT),
    };
    reader.error(error);
    None
}

/// The error for a port that is a text: a quoted number, a range, or a name.
fn quoted_port(place: &Located<'_>, text: &str) -> SpecError {
    let error = place.is_not(PORT);
    let is_number = |text: &str| text.trim().parse::<u16>().is_ok();
    if let Ok(number) = text.trim().parse::<NonZeroU16>() {
        return error.help(format!("write {number}, a number without quotes"));
    }
    if let Some((first, last)) = text.split_once(['-', ':', ','])
        && is_number(first)
        && is_number(last)
    {
        return error.help("a rule takes one port, write a rule for each");
    }
    if let Some((number, protocol)) = text.split_once('/')
        && is_number(number)
    {
        return error.help(format!(
            "write {}, and {} as the rule's protocol",
            number.trim(),
            protocol.trim().to_ascii_uppercase().escape_debug()
        ));
    }
    if text.bytes().any(|byte| byte.is_ascii_alphabetic()) {
        return error.help("names of services are not looked up, write the number");
    }
    error
}
