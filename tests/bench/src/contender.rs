//! Who is compared, each in a lab of its own.

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
    /// The egress router once more: what differs from the first is the harness's own error.
    EgressRouterAgain,
    /// The kernel's NAT with upstream's rules, by nftables.
    Nftables,
    /// The same rules by iptables.
    Iptables,
    /// The kernel's forwarding, without NAT.
    Forwarding,
    /// A bare `bpf_redirect` with fixed MAC addresses: the limit.
    Redirect,
    /// Nothing: packets are dropped where they arrive at the router.
    Sending,
}

use Contender::{
    EgressRouter, EgressRouterAgain, Forwarding, Iptables, Nftables, Redirect, Sending,
};

impl Contender {
    /// All of them.
    pub const ALL: [Self; 7] = [
        EgressRouter,
        EgressRouterAgain,
        Nftables,
        Iptables,
        Forwarding,
        Redirect,
        Sending,
    ];
    /// Those that connections work through.
    pub const CONNECTING: [Self; 6] = [
        EgressRouter,
        EgressRouterAgain,
        Nftables,
        Iptables,
        Forwarding,
        Redirect,
    ];
    /// The name that people read.
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

    /// Whether clients talk to the router's address, and not to the server's.
    const fn is_reached_at_the_router(self) -> bool {
        matches!(
            self,
            EgressRouter | EgressRouterAgain | Nftables | Iptables | Sending
        )
    }
}

/// What the contenders of a case are to carry.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Services of the router: as many redirect rules.
    pub rules: u16,
    /// Their protocol.
    pub protocol: Protocol,
    /// Flows that are alive at once.
    pub flows: u32,
    /// Whether the servers' ports are others than the services'.
    pub changes_ports: bool,
}

/// How long an idle UDP flow lives at every contender: longer than a run.
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

/// Why a contender takes no part.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Absent(pub String);

/// A contender in its lab.
#[derive(Debug)]
pub struct Stand {
    /// Who it is.
    pub contender: Contender,
    // Before the lab: it ends first.
    _running: Running,
    /// Where.
    pub lab: Lab,
}

/// What ends with a contender.
#[derive(Debug)]
enum Running {
    Router(#[expect(dead_code, reason = "runs while it is there")] RouterProcess),
    Wires(#[expect(dead_code, reason = "redirect while they are there")] [Wire; 2]),
    /// The kernel's own goes with the namespace.
    Kernel,
}

impl Stand {
    /// Builds a lab and puts the contender into its router pod.
    ///
    /// # Errors
    /// With an [`Absent`] as cause if this machine does not have the contender, or has it not for this load.
    pub fn build(contender: Contender, load: Load, object: &Object) -> Result<Self> {
        if let Some(reason) = missing(contender, load) {
            return Err(Absent(reason).into());
        }
        let lab = Lab::new()?;
        // What every contender needs beyond the router, and once, so that nobody waits for it later.
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

    /// Where a client sends to reach service `n`: address and port.
    pub fn reach(&self, protocol: Protocol, n: u16) -> std::net::SocketAddr {
        let rule = service(protocol, n);
        if self.contender.is_reached_at_the_router() {
            rule.service()
        } else {
            rule.server()
        }
    }

    /// What a client's datagrams to the services look like on the router's link.
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

/// Lets client and server talk to each other's addresses, through the router pod.
fn route_past_the_router_address(lab: &Lab) -> Result<()> {
    let (inside, outside) = (V4.router_eth0.address, V4.router_net1.address);
    lab.client()
        .ip([format!("route add {SERVER} via {inside}")])?;
    lab.gateway()
        .ip([format!("route add {} via {outside}", V4.cluster)])
}

/// Loads rules, but not for ever.
fn load_rules(program: &str, arguments: &[&str], script: &str, lab: &Lab) -> Result<()> {
    const LIMIT_S: &str = "60";
    let arguments: Vec<&str> = [LIMIT_S, program]
        .iter()
        .chain(arguments)
        .copied()
        .collect();
    // The message of a failure has the script, which may be long.
    lab.router()
        .feed("timeout", &arguments, script)
        .map_err(|error| {
            let message = error.to_string();
            let first = message.lines().next().unwrap_or_default().to_owned();
            Absent(format!("its rules were not loaded in {LIMIT_S} s: {first}")).into()
        })
}

/// Lets idle UDP flows of the kernel's NAT live as long as the router's.
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

/// Whether a program of this name is to be found.
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
