//! The kinds of interfaces of a router pod.

use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use rtnetlink::LinkNetkit;
use rtnetlink::packet_route::link::NetkitMode;

use crate::namespace::Namespace;

/// What joins the router's `eth0` to the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterLink {
    /// A veth pair, with a port of the node's bridge.
    #[default]
    Veth,
    /// A netkit pair (Linux 6.7) with MAC addresses, and a port of the node's bridge.
    NetkitL2,
    /// A netkit pair without MAC addresses: the node routes, and answers ARP for the router.
    NetkitL3,
}

impl ClusterLink {
    /// Whether the node's end can be a bridge port.
    pub fn is_bridged(self) -> bool {
        self != Self::NetkitL3
    }

    /// Why this kernel lacks this kind of interface; `None` if it has it.
    pub fn missing(self) -> Option<&'static str> {
        static NETKIT: OnceLock<Option<String>> = OnceLock::new();
        match self {
            Self::Veth => None,
            Self::NetkitL2 | Self::NetkitL3 => {
                let probe = |place: &Namespace| Self::NetkitL2.add(place, "probe", place, "other");
                NETKIT.get_or_init(|| refusal("netkit", probe)).as_deref()
            }
        }
    }

    /// Creates a pair: `name` here, `peer_name` in `peer`.
    pub(crate) fn add(
        self,
        here: &Namespace,
        name: &str,
        peer: &Namespace,
        peer_name: &str,
    ) -> Result<()> {
        let mode = match self {
            Self::Veth => {
                let path = peer.path();
                let path = path.display();
                return here.ip([format!(
                    "link add {name} type veth peer name {peer_name} netns {path}"
                )]);
            }
            Self::NetkitL2 => NetkitMode::L2,
            Self::NetkitL3 => NetkitMode::L3,
        };
        // `ip` supports netkit only since version 6.7.
        here.add_link(LinkNetkit::new(name, peer_name, mode).build())?;
        here.ip([format!(
            "link set {peer_name} netns {}",
            peer.path().display()
        )])
    }
}

/// What the router's `net1` is, on top of the node's `ext0`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EgressLink {
    /// A macvlan in bridge mode, with a MAC address of its own.
    #[default]
    Macvlan,
    /// An ipvlan in mode L2, which shares the MAC address of `ext0`.
    IpvlanL2,
}

impl EgressLink {
    /// Why this kernel lacks this kind of interface; `None` if it has it.
    pub fn missing(self) -> Option<&'static str> {
        static IPVLAN: OnceLock<Option<String>> = OnceLock::new();
        match self {
            Self::Macvlan => None,
            Self::IpvlanL2 => {
                let probe = |place: &Namespace| {
                    ClusterLink::Veth.add(place, "lower", place, "other")?;
                    Self::IpvlanL2.add(place, "lower", place, "probe")
                };
                IPVLAN.get_or_init(|| refusal("ipvlan", probe)).as_deref()
            }
        }
    }

    /// Creates one on top of `master`: `name` in `pod`.
    pub(crate) fn add(
        self,
        here: &Namespace,
        master: &str,
        pod: &Namespace,
        name: &str,
    ) -> Result<()> {
        let kind = match self {
            Self::Macvlan => "macvlan mode bridge",
            Self::IpvlanL2 => "ipvlan mode l2",
        };
        here.ip([format!(
            "link add link {master} name {name} netns {} type {kind}",
            pod.path().display()
        )])
    }
}

/// Why the kernel refuses `probe` in a new namespace.
fn refusal(kind: &str, probe: impl Fn(&Namespace) -> Result<()>) -> Option<String> {
    let tried = Namespace::new("probe")
        .and_then(|place| probe(&place))
        .with_context(|| format!("the kernel has no {kind}"));
    tried.err().map(|error| format!("{error:#}"))
}

/// Skips the calling test on a kernel that lacks one of these kinds of interfaces.
#[macro_export]
macro_rules! skip_without_links {
    ($($link:expr),+) => {$(
        if let Some(reason) = $link.missing() {
            $crate::requirements::skipped($crate::function_name!(), reason);
            return Ok(());
        }
    )+};
}
