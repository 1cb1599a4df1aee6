//! `egress-router rules`: what is redirected where, and how much of it.

use std::process::ExitCode;

use egress_userspace::dataplane::RuleReport;

use super::{
    instance,
    output::{self, Output},
};

/// Show the rules of the running router, with their counters
///
/// Flows, packets and bytes are counted for each rule: from clients (>) and to clients (<).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  egress-router rules
  egress-router rules --output json | jq '.[] | {port, flows}'")]
pub struct Args {
    #[command(flatten)]
    instance: instance::Selector,

    /// How to print the rules
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let rules = args.instance.find()?.maps.rules()?;
    match args.output {
        Output::Json => output::json(&rules)?,
        Output::Text => output::text(&table(&rules))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn table(rules: &[RuleReport]) -> String {
    let header = [
        "RULE",
        "PORT",
        "DESTINATION",
        "FLOWS",
        "PACKETS >",
        "BYTES >",
        "PACKETS <",
        "BYTES <",
    ];
    output::table(
        header,
        3,
        rules.iter().map(|rule| {
            [
                rule.id.to_string(),
                rule.port.map_or_else(
                    || "any other".to_owned(),
                    |port| format!("{port}/{}", rule.protocol),
                ),
                rule.destination.to_string(),
                rule.flows.to_string(),
                rule.original.packets.to_string(),
                output::bytes(rule.original.bytes),
                rule.reply.packets.to_string(),
                output::bytes(rule.reply.bytes),
            ]
        }),
    )
}
