//! The command line: the subcommands, one module each.

mod check;
mod completions;
mod duration;
mod exit;
mod explain;
mod flows;
mod follow;
mod instance;
mod man;
mod output;
mod protocol;
mod rules;
mod run;
mod schema;
mod status;
mod subnet;
mod terminal;
mod timeout;
mod top;
mod trace;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// Redirects connections from a cluster to external servers, from a reserved source address that those servers can
/// allow.
///
/// The router is a pod with two interfaces. Clients connect to its address on the cluster interface (eth0). The rules
/// of an `EgressRouter` resource choose the server, and each connection leaves the egress interface (net1) with the
/// reserved address. Two eBPF programs forward the packets in the kernel; this program loads them and shows what they
/// do.
#[derive(Parser)]
#[command(name = "egress-router", version, propagate_version = true, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// The subcommands. The help of each is the doc comment of its `Args`.
#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Check(check::Args),
    Schema(schema::Args),
    Rules(rules::Args),
    Flows(flows::Args),
    Status(status::Args),
    Top(top::Args),
    Explain(explain::Args),
    Trace(trace::Args),
    Completions(completions::Args),
    Man(man::Args),
}

/// Parses the command line and runs the subcommand.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(args),
        Command::Check(args) => check::run(args),
        Command::Schema(args) => schema::run(args),
        Command::Rules(args) => rules::run(args),
        Command::Flows(args) => flows::run(args),
        Command::Status(args) => status::run(args),
        Command::Top(args) => top::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Trace(args) => trace::run(args),
        Command::Completions(args) => completions::run(args, command()),
        Command::Man(args) => man::run(args, command()),
    };
    result.unwrap_or_else(|error| exit::report(&error))
}

/// The definition of the command line, from which completions and documentation are generated.
pub fn command() -> clap::Command {
    Cli::command()
}
