//! The kernel's own NAT in the router's place: what the tests are checked
//! against, and what the dataplane is compared with.

use std::fmt::Write as _;

use anyhow::Result;

use crate::addresses::{ROUTER_NET1, RULES};
use crate::namespace::Namespace;

/// Makes the kernel of `router` redirect by the example's rules, as routers
/// that are made of NAT rules do: destination NAT for what arrives on `eth0`,
/// source NAT for what leaves by `net1`, and IP forwarding.
pub fn start(router: &Namespace) -> Result<()> {
    let mut redirects = String::new();
    for rule in RULES {
        let (protocol, port) = (rule.protocol.name(), rule.port);
        writeln!(
            redirects,
            "iif eth0 {protocol} dport {port} dnat to {}",
            rule.server()
        )?;
    }
    let script = format!(
        "table ip egress {{
            chain prerouting {{
                type nat hook prerouting priority dstnat
                {redirects}
            }}
            chain postrouting {{
                type nat hook postrouting priority srcnat
                oif net1 snat to {}
            }}
        }}",
        ROUTER_NET1.address
    );
    router.feed("nft", &["-f", "-"], &script)?;
    router.set_sysctl("net.ipv4.ip_forward", "1")
}
