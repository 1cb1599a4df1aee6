//! `egress-router`: redirects what clients in a cluster send to it, and sends it out with a reserved source address.

use std::process::ExitCode;

fn main() -> ExitCode {
    egress_userspace::cli::main()
}
