//! `egress-router`: redirects what clients in a cluster send to it, and sends it out with a reserved source address.

mod commands;
mod exit;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

/// Redirects connections from a cluster to servers outside, with a reserved source address that those servers can admit.
///
/// The router is a pod with two interfaces: clients connect to its address on the cluster interface (eth0); by the rules
/// of an `EgressRouter` resource each connection goes to a server, and leaves the egress interface (net1) with the
/// reserved address. Two eBPF programs do it in the kernel; this program loads them, and shows what they do.
#[derive(Parser)]
#[command(name = "egress-router", version, propagate_version = true, after_help = exit::HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Each command's help is the documentation of its arguments.
#[derive(Subcommand)]
enum Command {
    Run(commands::run::Args),
    Check(commands::check::Args),
    Schema(commands::schema::Args),
    Rules(commands::rules::Args),
    Flows(commands::flows::Args),
    Status(commands::status::Args),
    Top(commands::top::Args),
    Explain(commands::explain::Args),
    Trace(commands::trace::Args),
    Completions(commands::completions::Args),
    Man(commands::man::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => commands::run::run(args),
        Command::Check(args) => commands::check::run(args),
        Command::Schema(args) => commands::schema::run(args),
        Command::Rules(args) => commands::rules::run(args),
        Command::Flows(args) => commands::flows::run(args),
        Command::Status(args) => commands::status::run(args),
        Command::Top(args) => commands::top::run(args),
        Command::Explain(args) => commands::explain::run(args),
        Command::Trace(args) => commands::trace::run(args),
        Command::Completions(args) => commands::completions::run(args, Cli::command()),
        Command::Man(args) => commands::man::run(args, Cli::command()),
    };
    result.unwrap_or_else(|error| exit::report(&error))
}
