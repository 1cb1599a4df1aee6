//! The `EgressRouter` resource (`network.operator.openshift.io/v1`): its types, and a reader that parses YAML or JSON
//! and reports every error.
//!
//! An [`EgressRouter`] from [`parse`], [`load`] or serde is valid. A dataplane takes the [`RuleTable`] that is derived
//! from it. `docs/spec.md` describes the fields and checks for users.

mod address;
pub mod cidr;
mod destination;
mod document;
mod error;
mod family;
mod field_schema;
mod interface;
mod ip;
mod metadata;
mod model;
mod node;
mod protocol;
mod reader;
mod redirect;
mod resource;
mod rule;
mod rule_table;
mod schema;
mod source;
#[cfg(test)]
mod tests;

pub use address::Address;
pub use error::{SpecError, SpecErrors};
pub use family::Family;
pub use model::{
    ApiVersion, EgressRouter, EgressRouterSpec, Kind, Macvlan, MacvlanMode, Metadata, Mode,
    NetworkInterface, Redirect,
};
pub use protocol::Protocol;
pub use rule::{RedirectRule, Rule};
pub use rule_table::RuleTable;
pub use schema::json_schema;
pub use source::{LoadError, STDIN, load, parse};
