//! `egress-router rules`: the rules of the running router, with their counters.

mod order;
pub mod print;

use std::process::ExitCode;

use self::order::Order;
use super::{
    instance,
    output::{self, Output},
    terminal,
};

/// Show the rules of the running router, with their counters
///
/// Each rule counts its flows, and packets and bytes from clients (>) and to clients (<). The last line has the sums of
/// all rules.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  egress-router rules
  egress-router rules --sort bytes --limit 10
  egress-router rules --output json | jq '.[] | {port, flows}'")]
pub struct Args {
    #[command(flatten)]
    instance: instance::Selector,

    /// The order of the rules
    #[arg(long, value_enum, value_name = "ORDER", default_value_t = Order::Rule)]
    sort: Order,

    /// Show only the first N
    #[arg(long, value_name = "N")]
    limit: Option<usize>,

    /// How to print the rules
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut rules = args.instance.find()?.maps.rules()?;
    args.sort.sort(&mut rules);
    let limit = args.limit.unwrap_or(usize::MAX).min(rules.len());
    match args.output {
        Output::Json => output::json(&rules[..limit])?,
        Output::Text => output::text(&print::text(&rules, limit, terminal::columns()))?,
    }
    Ok(ExitCode::SUCCESS)
}
