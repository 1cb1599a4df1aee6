//! The contenders, each in its own lab.

use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use egress_tests::addresses::V4;
use egress_tests::namespace::Mac;
use egress_tests::{Lab, PATIENCE, Protocol, RouterProcess, Rule, Spec, icmp, nftables};

use crate::iptables;
use crate::kernel::{Object, Wire};
use crate::source::Path;

/// What stands between the clients and the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Contender {
    /// The egress router.
    EgressRouter,
    /// The egress router once more. Its difference from the first is the harness's own error.
    EgressRouterAgain,
    /// The kernel's NAT with upstream's rules, by nftables.
    Nftables,
    /// The same rules by iptables.
    Iptables,
    /// The kernel's forwarding, without NAT.
    Forwarding,
    /// A bare `bpf_redirect` with fixed MAC addresses: the upper limit.
    Redirect,
    /// Nothing: packets are dropped where they arrive at the router.
    Sending,
}

use Contender::{
    EgressRouter, EgressRouterAgain, Forwarding, Iptables, Nftables, Redirect, Sending,
};

impl Contender {
    pub const ALL: [Self; 7] = [
        EgressRouter,
        EgressRouterAgain,
        Nftables,
        Iptables,
        Forwarding,
        Redirect,
        Sending,
    ];
    /// The contenders that connections work through.
    pub const CONNECTING: [Self; 6] = [
        EgressRouter,
        EgressRouterAgain,
        Nftables,
        Iptables,
        Forwarding,
        Redirect,
    ];
    /// The name for people.
    pub const fn name(self) -> &'static str {
        match self {
            EgressRouter => "egress-router",
            EgressRouterAgain => "egress-router again",
            Nftables => "nftables",
            Iptables => "iptables",
            Forwarding => "forwarding, no NAT",
            Redirect => "bare bpf_redirect",
            Sending => "sending only",
        }
    }

    /// Whether clients use the router's address, rather than the server's.
    const fn is_reached_at_the_router(self) -> bool {
        matches!(
            self,
            EgressRouter | EgressRouterAgain | Nftables | Iptables | Sending
        )
    }
}

/// What the contenders of a case must carry.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// The number of services of the router, each with a redirect rule.
    pub rules: u16,
    pub protocol: Protocol,
    /// The number of flows that are alive at once.
    pub flows: u32,
    /// Whether the servers' ports differ from the services'.
    pub changes_ports: bool,
}

/// The idle timeout of UDP flows for every contender, longer than a run.
const UDP_TIMEOUT_S: u32 = 3_600;

/// The server of all services.
const SERVER: Ipv4Addr = match V4.datagram_server.address {
    IpAddr::V4(address) => address,
    IpAddr::V6(_) => panic!("the server has an IPv4 address"),
};

/// Service `n` of the router: port `n + 1`, and 65535 − `n` at the server.
pub fn service(protocol: Protocol, n: u16) -> Rule {
    Rule {
        protocol,
        port: n + 1,
        destination: V4.datagram_server,
        target_port: u16::MAX - n,
    }
}

/// The redirect rules of a load.
pub fn spec(load: Load) -> Spec {
    let rule = |n| {
        let rule = service(load.protocol, n);
        let target_port = if load.changes_ports {
            rule.target_port
        } else {
            rule.port
        };
        Rule {
            target_port,
            ..rule
        }
    };
    Spec {
        rules: (0..load.rules).map(rule).collect(),
        fallback: None,
    }
}

/// The reason why a contender is not available.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Absent(pub String);

/// A contender in its lab.
#[derive(Debug)]
pub struct Testbed {
    pub contender: Contender,
    // Declared before the lab, because it must end first.
    _running: Running,
    pub lab: Lab,
}

/// What ends with a contender.
#[derive(Debug)]
enum Running {
    Router(#[expect(dead_code, reason = "runs until it is dropped")] RouterProcess),
    Wires(#[expect(dead_code, reason = "redirect until they are dropped")] [Wire; 2]),
    /// The kernel's own dataplane ends with the namespace.
    Kernel,
}

impl Testbed {
    /// Builds a lab and starts the contender in its router pod.
    ///
    /// # Errors
    /// With an [`Absent`] as the cause, if this machine lacks the contender or cannot run it with this load.
    pub fn build(contender: Contender, load: Load, object: &Object) -> Result<Self> {
        if let Some(reason) = missing(contender, load) {
            return Err(Absent(reason).into());
        }
        let lab = Lab::new()?;
        // Resolves the neighbours that every contender needs, so that no measurement waits for them.
        icmp::ping(lab.router(), SERVER.into(), PATIENCE)?;
        icmp::ping(lab.client(), V4.router_eth0.address, PATIENCE)?;
        let running = start(contender, &lab, load, object)
            .with_context(|| format!("starting {}", contender.name()))?;
        Ok(Self {
            contender,
            _running: running,
            lab,
        })
    }

    /// The address and port to which a client sends to reach service `n`.
    pub fn reach(&self, protocol: Protocol, n: u16) -> std::net::SocketAddr {
        let rule = service(protocol, n);
        if self.contender.is_reached_at_the_router() {
            rule.service()
        } else {
            rule.server()
        }
    }

    /// The addresses and ports of a client's datagrams on the router's link.
    pub fn path(&self) -> Result<Path> {
        let IpAddr::V4(client) = V4.client(0).address else {
            bail!("the client has an IPv4 address");
        };
        let first = self.reach(Protocol::Udp, 0);
        let IpAddr::V4(address) = first.ip() else {
            bail!("the services have IPv4 addresses");
        };
        Ok(Path {
            macs: [self.client_mac()?, self.lab.router().interface("eth0")?.mac],
            addresses: [client, address],
            port: first.port(),
            step: if self.contender.is_reached_at_the_router() {
                1
            } else {
                -1
            },
        })
    }

    fn client_mac(&self) -> Result<Mac> {
        Ok(self.lab.client().interface("eth0")?.mac)
    }
}

fn start(contender: Contender, lab: &Lab, load: Load, object: &Object) -> Result<Running> {
    let router = lab.router();
    match contender {
        EgressRouter | EgressRouterAgain => {
            let flows = load.flows.next_power_of_two().max(262_144).to_string();
            let timeout = format!("udp={UDP_TIMEOUT_S}");
            let options = ["--max-flows", &flows, "--timeout", &timeout];
            return Ok(Running::Router(
                lab.start_router_with(&spec(load).yaml(), &options)?,
            ));
        }
        Nftables => {
            load_rules("nft", &["-f", "-"], &nftables::script(&spec(load))?, lab)?;
            nftables::forward(router)?;
            keep_flows(lab)?;
        }
        Iptables => {
            let program = iptables::program().context("no iptables-restore")?;
            load_rules(program, &[], &iptables::script(&spec(load))?, lab)?;
            nftables::forward(router)?;
            keep_flows(lab)?;
        }
        Forwarding => {
            nftables::forward(router)?;
            route_past_the_router_address(lab)?;
        }
        Redirect => {
            route_past_the_router_address(lab)?;
            let gateway = lab.gateway().interface("lan0")?.mac;
            let client = lab.client().interface("eth0")?.mac;
            return Ok(Running::Wires([
                object.wire(router, ["eth0", "net1"], gateway)?,
                object.wire(router, ["net1", "eth0"], client)?,
            ]));
        }
        Sending => {}
    }
    Ok(Running::Kernel)
}

/// Lets client and server reach each other's addresses directly, through the router pod.
fn route_past_the_router_address(lab: &Lab) -> Result<()> {
    let (inside, outside) = (V4.router_eth0.address, V4.router_net1.address);
    lab.client()
        .ip([format!("route add {SERVER} via {inside}")])?;
    lab.gateway()
        .ip([format!("route add {} via {outside}", V4.cluster)])
}

/// Loads rules with a time limit.
fn load_rules(program: &str, arguments: &[&str], script: &str, lab: &Lab) -> Result<()> {
    const LIMIT_S: &str = "60";
    let arguments: Vec<&str> = [LIMIT_S, program]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    // The message of a failure contains the script, which may be long.
    lab.router()
        .feed("timeout", &arguments, script)
        .map_err(|error| {
            let message = error.to_string();
            let first = message.lines().next().unwrap_or_default().to_owned();
            Absent(format!("its rules were not loaded in {LIMIT_S} s: {first}")).into()
        })
}

/// Sets the idle timeout of the kernel's NAT to the router's.
fn keep_flows(lab: &Lab) -> Result<()> {
    for name in [
        "nf_conntrack_udp_timeout",
        "nf_conntrack_udp_timeout_stream",
    ] {
        lab.router()
            .set_sysctl(&format!("net.netfilter.{name}"), &UDP_TIMEOUT_S.to_string())?;
    }
    Ok(())
}

fn missing(contender: Contender, load: Load) -> Option<String> {
    match contender {
        Nftables | Iptables => {
            if contender == Iptables && iptables::program().is_none() {
                return Some("iptables is not installed".to_owned());
            }
            let most: u32 = std::fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")
                .ok()?
                .trim()
                .parse()
                .ok()?;
            (most < load.flows).then(|| {
                format!(
                    "net.netfilter.nf_conntrack_max is {most}, needed are {} flows",
                    load.flows
                )
            })
        }
        _ => None,
    }
}

/// Whether a program of this name is installed.
pub fn is_installed(program: &str) -> bool {
    Command::new("sh")
        .args([
            "-c",
            "PATH=$PATH:/usr/sbin:/sbin command -v \"$0\"",
            program,
        ])
        .output()
        .is_ok_and(|output| output.status.success())
}
