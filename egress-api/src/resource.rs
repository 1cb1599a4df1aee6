//! The resource as a whole.

use serde::{Deserialize, Deserializer};

use crate::error::SpecError;
use crate::model::{ApiVersion, EgressRouter, EgressRouterSpec, Kind, Mode, ModeName};
use crate::node::Node;
use crate::reader::{Located, Object, Path, Reader};
use crate::{address, interface, metadata, redirect};

const API_VERSION: &str = "network.operator.openshift.io/v1";
const KIND: &str = "EgressRouter";
const SPEC_FIELDS: [&str; 4] = ["mode", "networkInterface", "addresses", "redirect"];

/// Runs every check of [`parse`](crate::parse), so that a deserialised router is as valid as a parsed one.
impl<'de> Deserialize<'de> for EgressRouter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let node = Node::deserialize(deserializer)?;
        read(&node).map_err(|errors| {
            let errors: Vec<_> = errors.iter().map(ToString::to_string).collect();
            serde::de::Error::custom(errors.join("; "))
        })
    }
}

/// Checks a document and converts it to an `EgressRouter`.
pub(crate) fn read(node: &Node) -> Result<EgressRouter, Vec<SpecError>> {
    let mut reader = Reader::default();
    let document = Located {
        path: Path::root(),
        node,
    };
    let router = router(&mut reader, &document);
    let errors = reader.into_errors();
    match router {
        Some(router) if errors.is_empty() => Ok(router),
        _ => Err(errors),
    }
}

fn router<'n>(reader: &mut Reader<'n>, document: &Located<'n>) -> Option<EgressRouter> {
    if is_of_another_kind(document.node) {
        let kind = field(document.node, "kind").unwrap_or(document.node);
        let found = kind.to_string();
        reader.error(other_kind(&found));
        return None;
    }
    reader.duplicates(document);
    let object = reader.object(
        document,
        &["apiVersion", "kind", "metadata", "spec", "status"],
    )?;
    let api_version = reader
        .required(&object, "apiVersion", API_VERSION)
        .and_then(|place| {
            reader.choice(
                &place,
                "the apiVersion of an EgressRouter",
                &[(API_VERSION, ApiVersion::V1)],
            )
        });
    let kind = reader.required(&object, "kind", KIND).and_then(|place| {
        reader.choice(
            &place,
            "the kind of resource read here",
            &[(KIND, Kind::EgressRouter)],
        )
    });
    let metadata = reader
        .required(&object, "metadata", "an object with the router's name")
        .and_then(|place| metadata::read(reader, &place));
    let spec = reader
        .required(&object, "spec", "an object with addresses and redirect")
        .and_then(|place| spec(reader, &place));
    Some(EgressRouter {
        api_version: api_version?,
        kind: kind?,
        metadata: metadata?,
        spec: spec?,
    })
}

fn spec<'n>(reader: &mut Reader<'n>, place: &Located<'n>) -> Option<EgressRouterSpec> {
    let object = reader.object(place, &SPEC_FIELDS)?;
    let mode = mode(reader, &object);
    let interface = reader.optional(&object, "networkInterface");
    let network_interface = interface::read(reader, interface.as_ref());
    let own = address::read(reader, &object);
    let redirect = redirect::read(reader, &object, &own);
    Some(EgressRouterSpec {
        network_interface: network_interface?,
        addresses: own.into_addresses()?,
        mode: match mode? {
            ModeName::Redirect => Mode::Redirect(redirect?),
        },
    })
}

fn mode<'n>(reader: &mut Reader<'n>, spec: &Object<'n>) -> Option<ModeName> {
    match reader.optional(spec, "mode") {
        None => Some(ModeName::default()),
        Some(place) => reader.choice(&place, "a mode", &[("Redirect", ModeName::Redirect)]),
    }
}

/// Whether this is a list, or a resource that has nothing in common with an `EgressRouter`. Such a document gets a
/// single error, as an error for each of its fields would not help.
fn is_of_another_kind(document: &Node) -> bool {
    match field(document, "kind") {
        Some(Node::Text(kind)) if kind == "List" || kind == "EgressRouterList" => true,
        Some(Node::Text(kind)) if kind != KIND => {
            let is_alike = strsim::jaro_winkler(&kind.to_ascii_lowercase(), "egressrouter") >= 0.8;
            let has_our_spec = field(document, "spec").is_some_and(|spec| {
                SPEC_FIELDS[1..]
                    .iter()
                    .any(|name| field(spec, name).is_some())
            });
            !is_alike && !has_our_spec
        }
        _ => false,
    }
}

fn other_kind(found: &str) -> SpecError {
    let error = SpecError::is_not(
        "kind",
        found,
        format!("a kind read here ({KIND} is the only one)"),
    );
    if found.contains("List") {
        error.help("take one router out of the list, `kubectl get egressrouter NAME -o yaml` prints just one")
    } else {
        error
    }
}

fn field<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Node::Fields(fields) = node else {
        return None;
    };
    let (_, value) = fields.iter().find(|(field, _)| field == name)?;
    Some(value)
}
