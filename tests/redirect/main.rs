//! Real traffic through a router in a lab, as clients, servers and hosts beside the router see it.
//!
//! `EGRESS_TEST_DATAPLANE=nftables` runs the same tests against the kernel's own NAT. This shows that no test relies on
//! peculiarities of our dataplane.

#[macro_use]
mod running;

mod closing;
mod errors;
mod example;
mod fallback;
mod flood;
mod fragments;
mod headers;
mod hostile;
mod interfaces;
mod mtu;
mod neighbours;
mod outside;
mod pod;
mod ports;
mod redirection;
mod sctp;
mod sctp_sockets;
mod stopping;
mod traceroute;
mod volume;
