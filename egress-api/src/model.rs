//! The types of the resource. Field names and values are those of the custom resource definition.
//!
//! The doc comments of serialised types and fields are also the descriptions in the JSON Schema.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::Serialize;

use crate::address::Address;
use crate::field_schema;
use crate::rule::RedirectRule;

/// A router that lets pods reach servers outside of the cluster from a reserved source address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EgressRouter {
    /// The resource's group and version.
    pub api_version: ApiVersion,
    /// The resource's kind.
    pub kind: Kind,
    /// The object's metadata. Only name and namespace are looked at.
    pub metadata: Metadata,
    /// What the router does.
    pub spec: EgressRouterSpec,
}

impl EgressRouter {
    /// The reserved source addresses, each with its subnet's prefix length.
    pub fn reserved(&self) -> impl Iterator<Item = IpNet> {
        self.spec.addresses.iter().map(|own| own.ip)
    }
}

/// `network.operator.openshift.io/v1`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(inline)]
pub enum ApiVersion {
    /// The only version there is.
    #[default]
    #[serde(rename = "network.operator.openshift.io/v1")]
    V1,
}

/// `EgressRouter`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[schemars(inline)]
pub enum Kind {
    /// The only kind there is.
    #[default]
    EgressRouter,
}

/// The part of the object's metadata that the router looks at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(inline)]
pub struct Metadata {
    /// The router's name.
    #[schemars(length(max = 253), regex(pattern = field_schema::NAME_PATTERN))]
    pub name: String,
    /// The namespace that the router's pod runs in.
    #[schemars(length(max = 63), regex(pattern = field_schema::NAMESPACE_PATTERN))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
}

/// What the router does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(into = "WrittenSpec")]
#[schemars(from = "WrittenSpec", inline)]
pub struct EgressRouterSpec {
    /// The interface that traffic leaves by, net1 in the pod.
    pub network_interface: NetworkInterface,
    /// The reserved source addresses: one of IPv4, one of IPv6, or one of each.
    pub addresses: Vec<Address>,
    /// How traffic reaches the router, and where it goes.
    pub mode: Mode,
}

/// How traffic reaches the router, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Clients connect to the router's own address, and the router redirects them by port.
    Redirect(Redirect),
}

/// The serialised form of [`EgressRouterSpec`]: the mode is one field, and its settings are another.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(inline)]
struct WrittenSpec {
    /// How traffic reaches the router.
    #[schemars(default)]
    mode: ModeName,
    /// The interface that traffic leaves by, net1 in the pod.
    #[schemars(default)]
    network_interface: NetworkInterface,
    /// The reserved source addresses: one of IPv4, one of IPv6, or one of each.
    #[schemars(length(min = 1, max = 2))]
    addresses: Vec<Address>,
    /// Where traffic goes.
    redirect: Redirect,
}

/// How traffic reaches the router.
#[derive(Clone, Copy, Default, Serialize, JsonSchema)]
#[schemars(inline)]
pub(crate) enum ModeName {
    /// Clients connect to the router's own address, and the router redirects them by port.
    #[default]
    Redirect,
}

impl From<EgressRouterSpec> for WrittenSpec {
    fn from(spec: EgressRouterSpec) -> Self {
        let Mode::Redirect(redirect) = spec.mode;
        Self {
            mode: ModeName::Redirect,
            network_interface: spec.network_interface,
            addresses: spec.addresses,
            redirect,
        }
    }
}

/// The interface that traffic leaves by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(inline)]
pub struct NetworkInterface {
    /// A macvlan, the only type there is.
    #[schemars(default)]
    pub macvlan: Macvlan,
}

/// A macvlan over one of the node's interfaces.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(inline)]
pub struct Macvlan {
    /// How the macvlan talks to others over the same master.
    #[schemars(default)]
    pub mode: MacvlanMode,
    /// The node's interface below the macvlan. Left out: the one that holds the node's default route.
    #[schemars(length(min = 1, max = 15), regex(pattern = field_schema::INTERFACE_PATTERN))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub master: Option<String>,
}

/// How a macvlan talks to others over the same master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, JsonSchema)]
#[schemars(inline)]
pub enum MacvlanMode {
    /// Directly, on the node.
    #[default]
    Bridge,
    /// Not at all.
    Private,
    /// Through the switch, which has to send their frames back.
    #[serde(rename = "VEPA")]
    Vepa,
    /// There are no others: the macvlan has the master for itself.
    Passthru,
}

/// Where traffic goes: by rule, to the fallback, or both.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(inline, extend("anyOf" = field_schema::rule_or_fallback()))]
pub struct Redirect {
    /// One destination per port, protocol and address family.
    #[schemars(default)]
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub redirect_rules: Vec<RedirectRule>,
    /// Takes what no rule takes, on the port that the client used.
    #[schemars(with = "Option<field_schema::IpAddress>")]
    #[serde(rename = "fallbackIP", skip_serializing_if = "Option::is_none")]
    pub fallback_ip: Option<IpAddr>,
}
