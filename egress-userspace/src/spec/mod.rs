//! The `EgressRouter` resource (`network.operator.openshift.io/v1`): its model, and the reader that turns YAML or
//! JSON into it or reports everything that is wrong with it.
//!
//! An [`EgressRouter`] that came out of [`parse`], [`load`] or serde is valid: the dataplane checks nothing again.
//! The fields, what each one means and what is checked are described for users in `docs/spec.md`.

mod address;
mod destination;
mod document;
mod error;
mod interface;
mod metadata;
mod model;
mod node;
mod prefix;
mod reader;
mod redirect;
mod resource;
mod schema;
mod source;
#[cfg(test)]
mod tests;

pub use error::{SpecError, SpecErrors};
pub use model::{
    Address, ApiVersion, EgressRouter, EgressRouterSpec, Kind, Macvlan, MacvlanMode, Metadata,
    Mode, NetworkInterface, Protocol, Redirect, RedirectRule,
};
pub use prefix::{Family, IpPrefix};
pub use schema::json_schema;
pub use source::{EXIT_INVALID_SPEC, EXIT_UNREADABLE, LoadError, STDIN, load};

/// Reads one `EgressRouter` from YAML or JSON.
///
/// `source` is what the errors call the text: a file name, mostly.
///
/// # Errors
/// Everything that is wrong, in one go. Only a syntax error hides what comes after it.
pub fn parse(text: &str, source: &str) -> Result<EgressRouter, SpecErrors> {
    document::read(text)
        .and_then(|node| resource::read(&node))
        .map_err(|errors| SpecErrors {
            file: source.to_owned(),
            errors,
        })
}
