//! `egress-router flows`: who talks to whom through the router.

use std::process::ExitCode;

use egress_userspace::{dataplane::FlowReport, kernel};

use super::{
    follow, instance,
    output::{self, Output},
};

/// Show the flows of the running router
///
/// A flow reads as `client → router ⇒ reserved → server`: the client connects to the router, which connects to the
/// server with the reserved address. Packets and bytes are those from the client (>) and to the client (<).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  egress-router flows
  watch egress-router flows
  egress-router flows --follow
  egress-router flows --output json | jq 'map(select(.state == \"ESTABLISHED\")) | length'")]
pub struct Args {
    #[command(flatten)]
    instance: instance::Selector,

    /// Print flows as they are opened (+) and end (-), until SIGINT; as JSON, a line for each
    #[arg(long)]
    follow: bool,

    /// How to print the flows
    #[arg(long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.follow {
        return follow::follow(args.instance.find()?, args.output);
    }
    let flows = args.instance.find()?.maps.flows(kernel::monotonic_ns());
    match args.output {
        Output::Json => output::json(&flows)?,
        Output::Text => output::text(&table(&flows))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn table(flows: &[FlowReport]) -> String {
    let header = [
        "PROTO",
        "CLIENT → ROUTER ⇒ RESERVED → SERVER",
        "STATE",
        "AGE",
        "PACKETS >",
        "BYTES >",
        "PACKETS <",
        "BYTES <",
    ];
    output::table(
        header,
        3,
        flows.iter().map(|flow| {
            [
                flow.protocol.clone(),
                format!(
                    "{} → {} ⇒ {} → {}",
                    flow.client, flow.router, flow.reserved, flow.server
                ),
                flow.state.to_owned(),
                output::duration(flow.age_seconds),
                flow.original.packets.to_string(),
                output::bytes(flow.original.bytes),
                flow.reply.packets.to_string(),
                output::bytes(flow.reply.bytes),
            ]
        }),
    )
}
