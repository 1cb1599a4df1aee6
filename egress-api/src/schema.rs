//! The JSON Schema of the resource, for editors.
//!
//! It knows each field by itself. What fields mean to each other (subnets, duplicates, families) only
//! [`parse`](crate::parse) checks.

use schemars::Schema;
use schemars::generate::SchemaSettings;
use serde_json::json;

use crate::model::EgressRouter;

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
