//! `egress-router flows`: the flows of the running router.

mod filter;
pub mod order;
mod print;

use std::process::ExitCode;

use self::{filter::Filter, order::Order, print::Format};
use super::{follow, instance, output::Output};
use crate::{dataplane::FlowReport, net::kernel};

/// Without `--sort`, more flows than this are printed in the order of the table, and never held in memory at once.
const SORTED_BY_DEFAULT: usize = 10_000;

/// Show the flows of the running router
///
/// A flow is shown as `client → router ⇒ reserved → server`: the client connects to the router, which connects to the
/// server from the reserved address. Packets and bytes are those from the client (>) and to the client (<).
///
/// Options select flows. If an option is repeated, a flow must match one of its values. If several options are given, a
/// flow must match all of them.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  egress-router flows
  egress-router flows --client 10.128.0.0/16 --destination 203.0.113.26:443
  egress-router flows --protocol tcp --state established --sort idle --limit 20
  watch egress-router flows --sort bytes --limit 20
  egress-router flows --follow
  egress-router flows --state established --output json | jq length
  egress-router flows --output jsonl | gzip > flows.jsonl.gz")]
pub struct Args {
    #[command(flatten)]
    instance: instance::Selector,

    #[command(flatten)]
    filter: Filter,

    /// The order of the flows. Without it, up to 10,000 flows are sorted by client; more are printed in the table's
    /// order
    #[arg(long, value_enum, value_name = "ORDER", conflicts_with = "follow")]
    sort: Option<Order>,

    /// Show only the first N: in the order of --sort, or without it in the table's
    #[arg(long, value_name = "N", conflicts_with = "follow")]
    limit: Option<usize>,

    /// Print flows as they are opened (+) and end (-), until SIGINT; as JSON, one line each
    #[arg(long, help_heading = None)]
    follow: bool,

    /// How to print the flows
    #[arg(long, help_heading = None, value_enum, default_value_t = Format::Text)]
    output: Format,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let instance = args.instance.find()?;
    if args.follow {
        let output = match args.output {
            Format::Text => Output::Text,
            Format::Json | Format::Jsonl => Output::Json,
        };
        return follow::follow(instance, output);
    }
    let flows = instance
        .maps
        .walk_flows(kernel::monotonic_ns())?
        .filter(|flow| args.filter.selects(flow));
    match (args.sort, args.limit) {
        (Some(order), Some(limit)) => {
            print::print(args.output, order.first(limit, flows).into_iter())?;
        }
        (Some(order), None) => {
            let mut flows: Vec<_> = flows.collect();
            order.sort(&mut flows);
            print::print(args.output, flows.into_iter())?;
        }
        (None, limit) => print_by_default(args.output, flows.take(limit.unwrap_or(usize::MAX)))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints flows without `--sort`: by client if they are few, else in the order of the table.
fn print_by_default(
    format: Format,
    mut flows: impl Iterator<Item = FlowReport>,
) -> anyhow::Result<()> {
    let mut first: Vec<_> = flows.by_ref().take(SORTED_BY_DEFAULT + 1).collect();
    if first.len() > SORTED_BY_DEFAULT {
        eprintln!("more than {SORTED_BY_DEFAULT} flows: not sorted (--sort sorts them in memory)");
        return print::print(format, first.into_iter().chain(flows));
    }
    Order::Client.sort(&mut first);
    print::print(format, first.into_iter())
}
