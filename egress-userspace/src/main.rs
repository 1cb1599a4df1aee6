//! `egress-router`: redirects client connections from a cluster to external servers, from a reserved source address.

use std::process::ExitCode;

fn main() -> ExitCode {
    egress_userspace::cli::main()
}
