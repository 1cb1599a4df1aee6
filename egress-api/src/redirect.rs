//! `spec.redirect`: the rules and the fallback.

use std::collections::HashMap;
use std::num::NonZeroU16;

use crate::address::OwnAddresses;
use crate::destination;
use crate::error::SpecError;
use crate::family::Family;
use crate::model::{Redirect, RedirectRule};
use crate::node::Node;
use crate::protocol::Protocol;
use crate::reader::{Located, Object, Path, Reader};

const PORT: &str = "a port (1–65535)";
const RULE_OR_FALLBACK: &str = "redirectRules, fallbackIP or both";

/// Reads the rules and the fallback.
pub(crate) fn read<'n>(
    reader: &mut Reader<'n>,
    spec: &Object<'n>,
    own: &OwnAddresses,
) -> Option<Redirect> {
    let place = reader.optional(spec, "redirect");
    let object = match &place {
        Some(place) => Some(reader.object(place, &["redirectRules", "fallbackIP"])?),
        None => None,
    };
    let find = |name: &str| match &object {
        Some(object) => reader.optional(object, name),
        // Rules with the wrong indentation are not missing.
        None => reader.misplaced(name),
    };
    let (rules_place, fallback_place) = (find("redirectRules"), find("fallbackIP"));
    let is_empty = |place: &Located<'_>| *place.node == Node::List(Vec::new());
    if fallback_place.is_none() && rules_place.as_ref().is_none_or(is_empty) {
        let path = spec.path.field("redirect");
        reader.error(match object {
            // An unknown field may be a misspelt one of these, and is an error already.
            Some(object) if object.has_unknown => return None,
            Some(_) => SpecError::instead(path, "neither rules nor a fallback", RULE_OR_FALLBACK),
            None => SpecError::missing(path, RULE_OR_FALLBACK),
        });
    }
    let rules = match rules_place {
        Some(place) => rules(reader, &place, own),
        None => Some(Vec::new()),
    };
    let fallback_ip = fallback_place.and_then(|place| destination::read(reader, &place, own));
    Some(Redirect {
        redirect_rules: rules?,
        fallback_ip,
    })
}

fn rules<'n>(
    reader: &mut Reader<'n>,
    place: &Located<'n>,
    own: &OwnAddresses,
) -> Option<Vec<RedirectRule>> {
    let items = reader.list(place, "rules")?;
    let mut taken: HashMap<Key, Path> = HashMap::new();
    let rules: Vec<_> = items
        .iter()
        .map(|item| rule(reader, item, own, &mut taken))
        .collect();
    rules.into_iter().collect()
}

/// What a rule matches: no two rules may have the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    port: NonZeroU16,
    protocol: Protocol,
    family: Family,
}

fn rule<'n>(
    reader: &mut Reader<'n>,
    item: &Located<'n>,
    own: &OwnAddresses,
    taken: &mut HashMap<Key, Path>,
) -> Option<RedirectRule> {
    let object = reader.object(item, &["destinationIP", "port", "protocol", "targetPort"])?;
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
