//! The JSON Schemas of single fields, which the types of the resource refer to.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::json;

/// Four octets without leading zeros.
const IPV4_PATTERN: &str = r"((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3})";
/// Accepts more than RFC 4291, section 2.2: an exact pattern would be unreadable in an editor's error message.
const IPV6_PATTERN: &str =
    r"([0-9A-Fa-f]{0,4}(:[0-9A-Fa-f]{0,4}){2,7}([0-9]{1,3}(\.[0-9]{1,3}){3})?)";
/// A DNS subdomain in lower case, as in the names of Kubernetes objects.
pub(crate) const NAME_PATTERN: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// A DNS label in lower case, as in the names of namespaces.
pub(crate) const NAMESPACE_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// The interface names that the kernel accepts, and also `.` and `..`, which it does not.
pub(crate) const INTERFACE_PATTERN: &str = r"^[^\s/:]+$";

/// The schema of a single address.
pub(crate) struct IpAddress;

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

/// The schema of an address with its prefix length.
pub(crate) struct Cidr;

impl JsonSchema for Cidr {
    fn schema_name() -> Cow<'static, str> {
        "Cidr".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "anyOf": [
                { "pattern": format!("^{IPV4_PATTERN}/([1-9]|[12][0-9]|3[0-2])$") },
                { "pattern": format!("^{IPV6_PATTERN}/([1-9]|[1-9][0-9]|1[01][0-9]|12[0-8])$") },
            ],
        })
    }
}

/// The schema of a port.
pub(crate) struct Port;

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

/// The constraint that the type of `redirect` cannot express: at least one rule, or a fallback.
pub(crate) fn rule_or_fallback() -> serde_json::Value {
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
