//! The JSON Schema of the resource, for editors.
//!
//! It describes each field on its own. Only [`parse`](crate::parse) checks constraints between fields: subnets,
//! duplicates and families.

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
            "description": "The status that the cluster reports. It is ignored.",
        });
        properties.insert("status".to_owned(), status);
    }
    schema
}
