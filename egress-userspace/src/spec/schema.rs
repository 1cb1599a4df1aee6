//! The JSON Schema of the resource, for editors.
//!
//! It knows each field by itself. What fields mean to each other (subnets, duplicates, families) only
//! [`parse`](super::parse) checks.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;

use super::model::EgressRouter;

/// Four octets without leading zeros.
pub(super) const IPV4_PATTERN: &str = r"((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3})";
/// Wider than RFC 4291, section 2.2: an exact pattern is too long for anybody who reads an editor's message.
pub(super) const IPV6_PATTERN: &str =
    r"([0-9A-Fa-f]{0,4}(:[0-9A-Fa-f]{0,4}){2,7}([0-9]{1,3}(\.[0-9]{1,3}){3})?)";
/// A DNS subdomain in lower case, as names of Kubernetes objects are.
pub(super) const NAME_PATTERN: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A DNS label in lower case, as names of namespaces are.
pub(super) const NAMESPACE_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// What the kernel takes as the name of an interface, except for `.` and `..`.
pub(super) const INTERFACE_PATTERN: &str = r"^[^\s/:]+$";

/// The JSON Schema (draft 2020-12) of an `EgressRouter`.
pub fn json_schema() -> Schema {
    let mut schema = SchemaSettings::draft2020_12()
        .into_generator()
        .into_root_schema_for::<EgressRouter>();
    if let Some(properties) = schema
        .get_mut("properties")
        .and_then(serde_json::Value::as_object_mut)
    {
        let status = json!({
            "description": "What the cluster last said about the router. Accepted and not read.",
        });
        properties.insert("status".to_owned(), status);
    }
    schema
}

/// The schema of a single address.
pub(super) struct IpAddress;

impl JsonSchema for IpAddress {
    fn schema_name() -> Cow<'static, str> {
        "IpAddress".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An IPv4 or IPv6 address.",
            "type": "string",
            "anyOf": [
                { "format": "ipv4", "pattern": format!("^{IPV4_PATTERN}$") },
                { "format": "ipv6", "pattern": format!("^{IPV6_PATTERN}$") },
            ],
        })
    }
}

/// The schema of a port.
pub(super) struct Port;

impl JsonSchema for Port {
    fn schema_name() -> Cow<'static, str> {
        "Port".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": u16::MAX })
    }
}

/// What the type of `redirect` cannot say: at least one rule, or a fallback.
pub(super) fn rule_or_fallback() -> serde_json::Value {
    json!([
        {
            "required": ["redirectRules"],
            "properties": { "redirectRules": { "type": "array", "minItems": 1 } },
        },
        {
            "required": ["fallbackIP"],
            "properties": { "fallbackIP": { "type": "string" } },
        },
    ])
}
