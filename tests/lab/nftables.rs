//! The kernel's own NAT in place of the router, as a reference for the tests and the comparisons; and a firewall for
//! hosts.

use std::fmt::Write as _;

use anyhow::Result;

use crate::addresses::NETWORKS;
use crate::namespace::Namespace;
use crate::spec::Spec;

/// Makes `host` drop every incoming ICMP error, as behind a firewall that blocks ICMP. Neighbour discovery still works.
pub fn lose_icmp_errors(host: &Namespace) -> Result<()> {
    host.feed(
        "nft",
        &["-f", "-"],
        "table inet deaf {
            chain input {
                type filter hook input priority filter
                icmp type { destination-unreachable, time-exceeded, parameter-problem } drop
                icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } drop
            }
        }",
    )
}

/// Undoes [`lose_icmp_errors`].
pub fn take_icmp_errors(host: &Namespace) -> Result<()> {
    host.feed("nft", &["-f", "-"], "delete table inet deaf")
}

/// Makes the kernel of `router` redirect according to `spec`, like routers built from NAT rules: destination NAT for
/// packets from `eth0`, source NAT for packets that leave through `net1`, and IP forwarding.
pub fn start(router: &Namespace, spec: &Spec) -> Result<()> {
    router.feed("nft", &["-f", "-"], &script(spec)?)?;
    forward(router)
}

/// Enables IP forwarding of both families on `host`.
pub fn forward(host: &Namespace) -> Result<()> {
    host.set_sysctl("net.ipv4.ip_forward", "1")?;
    host.set_sysctl("net.ipv6.conf.all.forwarding", "1")
}

/// The `nft -f` script that redirects according to `spec`.
pub fn script(spec: &Spec) -> Result<String> {
    let mut script = String::new();
    for network in NETWORKS {
        let own = network.router_eth0.address;
        let family = if own.is_ipv4() { "ip" } else { "ip6" };
        let mut redirects = String::new();
        let is_ours = |server: std::net::IpAddr| server.is_ipv4() == own.is_ipv4();
        for rule in &spec.rules {
            if is_ours(rule.destination.address) {
                let (protocol, port) = (rule.protocol.name().to_lowercase(), rule.port);
                writeln!(
                    redirects,
                    "iif eth0 {protocol} dport {port} dnat to {}",
                    rule.server()
                )?;
            }
        }
        if let Some(server) = spec.fallback.filter(|server| is_ours(*server)) {
            writeln!(redirects, "iif eth0 {family} daddr {own} dnat to {server}")?;
        }
        write!(
            script,
            "table {family} egress {{
                chain prerouting {{
                    type nat hook prerouting priority dstnat
                    {redirects}
                }}
                chain postrouting {{
                    type nat hook postrouting priority srcnat
                    oif net1 snat to {}
                }}
            }}
            ",
            network.router_net1.address
        )?;
    }
    Ok(script)
}
