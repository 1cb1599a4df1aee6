//! `egress-router schema`: the JSON Schema of a spec.

use std::process::ExitCode;

use super::output;

/// Print the JSON Schema of a spec, which editors can use
///
/// With the schema, an editor completes field names, shows their meaning and marks wrong values. The schema checks each
/// field on its own; `egress-router check` also checks subnets, duplicates and address families.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example, for editors that use yaml-language-server:
  egress-router schema > egressrouter.schema.json
and as the first line of the spec:
  # yaml-language-server: $schema=egressrouter.schema.json")]
pub struct Args {}

/// Prints the schema.
pub fn run(_: Args) -> anyhow::Result<ExitCode> {
    output::json(&egress_api::json_schema())?;
    Ok(ExitCode::SUCCESS)
}
