//! A router in a lab, and connections through it.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Result, bail};
use egress_tests::{Dataplane, Lab, Namespace, RouterProcess, Spec, router, tcp, udp};

/// Long enough for a packet to cross the lab, for tests that expect none.
pub const A_WHILE: Duration = Duration::from_millis(400);

/// Turns each function into a test for each family, with that family's addresses of the lab as its argument.
macro_rules! over_each_family {
    ($($behaviour:ident),+ $(,)?) => {$(
        mod $behaviour {
            #[test]
            fn over_ipv4() -> anyhow::Result<()> {
                egress_tests::skip_unless_lab_works!();
                super::$behaviour(&egress_tests::addresses::V4)
            }

            #[test]
            fn over_ipv6() -> anyhow::Result<()> {
                egress_tests::skip_unless_lab_works!();
                super::$behaviour(&egress_tests::addresses::V6)
            }
        }
    )+};
}

/// Skips the calling test if nftables is the dataplane.
macro_rules! skip_on_nftables {
    ($reason:literal) => {
        if egress_tests::Dataplane::from_env()? == egress_tests::Dataplane::Nftables {
            let test = egress_tests::function_name!();
            egress_tests::requirements::skipped(test, concat!("nftables: ", $reason));
            return Ok(());
        }
    };
}

/// The dataplane of a test. If the test fails, its log is printed.
pub struct Running(pub Option<RouterProcess>);

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(router) = &self.0 {
            eprintln!("the router's log:\n{}", router.log());
        }
    }
}

/// Starts the dataplane with rules for both families.
pub fn start(lab: &Lab) -> Result<Running> {
    start_by(lab, &Spec::dual_stack())
}

/// Starts the dataplane with a spec.
pub fn start_by(lab: &Lab, spec: &Spec) -> Result<Running> {
    Ok(Running(match Dataplane::from_env()? {
        Dataplane::EgressRouter => Some(lab.start_router_by(spec)?),
        Dataplane::Nftables => {
            lab.start_nftables(spec)?;
            None
        }
    }))
}

/// Starts `egress-router`, whatever the dataplane under test, with these options.
pub fn start_with(lab: &Lab, options: &[&str]) -> Result<Running> {
    let spec = Spec::dual_stack().yaml();
    Ok(Running(Some(lab.start_router_with(&spec, options)?)))
}

/// The number of packets with an outcome, according to `status`.
pub fn outcome(lab: &Lab, name: &str) -> Result<u64> {
    router::outcome(&lab.ask("status")?, name)
}

/// Checks that a connection is refused.
pub fn expect_refusal(namespace: &Namespace, address: SocketAddr) -> Result<()> {
    let Err(error) = tcp::connect(namespace, address) else {
        bail!("{address}/tcp accepted a connection, expected a refusal");
    };
    if tcp::error_kind(&error) == Some(io::ErrorKind::ConnectionRefused) {
        Ok(())
    } else {
        Err(error.context("expected a refusal"))
    }
}

/// UDP sockets of all clients, connected to `service` from the same source port.
pub fn datagrams_from_one_port(lab: &Lab, service: SocketAddr) -> Result<Vec<UdpSocket>> {
    const SOURCE_PORT: u16 = 40_000;
    lab.clients()
        .iter()
        .map(|client| udp::connect_from(client, SOURCE_PORT, service))
        .collect()
}
