//! Upstream's rules by iptables.

use std::fmt::Write as _;

use anyhow::Result;
use egress_tests::Spec;
use egress_tests::addresses::V4;

use crate::contender::is_installed;

/// The program that loads rules: the one based on `nf_tables`, else the legacy one.
pub fn program() -> Option<&'static str> {
    ["iptables-nft-restore", "iptables-legacy-restore"]
        .into_iter()
        .find(|program| is_installed(program))
}

/// The script that redirects according to the IPv4 rules of `spec`.
pub fn script(spec: &Spec) -> Result<String> {
    let mut script = String::from("*nat\n");
    let rules = spec.rules.iter();
    for rule in rules.filter(|rule| rule.destination.address.is_ipv4()) {
        let (protocol, port, server) = (
            rule.protocol.name().to_lowercase(),
            rule.port,
            rule.server(),
        );
        writeln!(
            script,
            "-A PREROUTING -i eth0 -p {protocol} --dport {port} -j DNAT --to-destination {server}"
        )?;
    }
    let own = V4.router_net1.address;
    writeln!(script, "-A POSTROUTING -o net1 -j SNAT --to-source {own}")?;
    script.push_str("COMMIT\n");
    Ok(script)
}
