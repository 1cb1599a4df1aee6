//! The `EgressRouter` resource (`network.operator.openshift.io/v1`): its types, and the reader that turns YAML or JSON
//! into them or reports everything that is wrong.
//!
//! An [`EgressRouter`] that came out of [`parse`], [`load`] or serde is valid. [`RuleTable`] is what a dataplane takes
//! of it. The fields, what each one means and what is checked are described for users in `docs/spec.md`.

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
mod rule_table;
mod schema;
mod source;
#[cfg(test)]
mod tests;

pub use error::{SpecError, SpecErrors};
pub use family::Family;
pub use model::{
    Address, ApiVersion, EgressRouter, EgressRouterSpec, Kind, Macvlan, MacvlanMode, Metadata,
    Mode, NetworkInterface, Redirect, RedirectRule,
};
pub use protocol::Protocol;
pub use rule_table::{Rule, RuleTable};
pub use schema::json_schema;
pub use source::{LoadError, STDIN, load, parse};
