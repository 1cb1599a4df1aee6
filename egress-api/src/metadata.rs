//! `metadata`: the router's name and namespace.

use crate::error::SpecError;
use crate::model::Metadata;
use crate::node::Node;
use crate::reader::{Located, Reader};

const NAME: &str = "a name of lower-case letters, digits, '-' and '.' that starts and ends with a letter or digit (at \
                    most 253 characters)";
const NAMESPACE: &str = "a namespace of lower-case letters, digits and '-' that starts and ends with a letter or digit \
                         (at most 63 characters)";

/// Reads name and namespace. The other fields, which a cluster writes, are ignored.
pub(crate) fn read<'n>(reader: &mut Reader<'n>, place: &Located<'n>) -> Option<Metadata> {
    let Node::Fields(fields) = place.node else {
        reader.error(place.is_not("an object with name and namespace"));
        return None;
    };
    let field = |name: &str| {
        let (_, node) = fields.iter().find(|(field, _)| field == name)?;
        let path = place.path.field(name);
        (*node != Node::Null).then_some(Located { path, node })
    };
    let name_place = field("name").or_else(|| reader.misplaced("name"));
    if name_place.is_none() {
        reader.error(SpecError::missing(
            place.path.field("name"),
            "the router's name",
        ));
    }
    let name = name_place.and_then(|place| checked(reader, &place, NAME, 253, is_subdomain));
    let namespace = match field("namespace").or_else(|| reader.misplaced("namespace")) {
        Some(namespace) => Some(checked(reader, &namespace, NAMESPACE, 63, is_label)?),
        None => None,
    };
    Some(Metadata {
        name: name?,
        namespace,
    })
}

fn checked<'n>(
    reader: &mut Reader<'n>,
    place: &Located<'n>,
    expected: &str,
    max_len: usize,
    is_valid: fn(&str) -> bool,
) -> Option<String> {
    let text = reader.text(place, expected)?;
    if text.len() > max_len || !is_valid(text) {
        reader.error(place.is_not(expected));
        return None;
    }
    Some(text.to_owned())
}

/// Whether a text is labels separated by dots (RFC 1123, section 2.1), in lower case as Kubernetes requires.
fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

fn is_label(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with('-')
        && !text.ends_with('-')
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}
