//! The arguments of `explain`.

use std::net::IpAddr;

use clap::error::ErrorKind;
use egress_api::Family;

use super::super::{instance, output::Output, protocol::FlowProtocol};

/// Show what would happen to a new connection, and why
///
/// Follows a connection from CLIENT to PORT of the running router step by step, by the current state of router and
/// kernel. Nothing is sent. The last line says whether the connection would be forwarded. A ping has an identifier
/// instead of a port.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  egress-router explain 10.128.0.5 8080 tcp
  egress-router explain 10.128.0.5 4321 icmp
  egress-router explain 2001:db8:1::5 443 tcp --output json | jq .forwarded

Exit code 0 if it would be forwarded, 9 if not.")]
pub struct Args {
    /// The client's address
    pub client: IpAddr,

    /// The router's port; for a ping, its identifier
    pub port: u16,

    /// The protocol; icmp and icmpv6 mean a ping
    #[arg(value_enum, ignore_case = true)]
    pub protocol: FlowProtocol,

    #[command(flatten)]
    pub instance: instance::Selector,

    /// How to print the explanation
    #[arg(long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

impl Args {
    /// Exits with a usage error if the protocol and the client are of different address families.
    pub fn check(&self) {
        if let FlowProtocol::Echo(needed) = self.protocol
            && needed != Family::of(self.client)
        {
            let message = format!(
                "{} requires an {needed} address, and {} is not one\n",
                self.protocol.name(),
                self.client
            );
            clap::Error::raw(ErrorKind::ValueValidation, message).exit();
        }
    }
}
