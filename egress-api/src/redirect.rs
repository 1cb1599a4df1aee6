//! `spec.redirect`: the rules and the fallback.

use std::collections::HashMap;

use crate::address::OwnAddresses;
use crate::destination;
use crate::error::SpecError;
use crate::model::Redirect;
use crate::node::Node;
use crate::reader::{Located, Object, Reader};
use crate::rule::{self, RedirectRule};

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
    let mut taken = HashMap::new();
    let rules: Vec<_> = items
        .iter()
        .map(|item| rule::read(reader, item, own, &mut taken))
        .collect();
    rules.into_iter().collect()
}
