//! What both halves of the egress router must agree on, and all logic that needs no kernel.
//!
//! The kernel half (`egress-ebpf`) and the userspace half (`egress-userspace`) share the layouts of map keys and
//! values, and the pure logic on them: parsing, checksum deltas, choice of NAT ports, connection states, timeouts. All
//! of it also runs, and is tested, on the host.
//!
//! Addresses and ports are always in network byte order, in the types [`Ipv4Address`], [`Ipv6Address`] and [`Port`].

#![no_std]

mod bytes;
pub mod checksum;
mod config;
mod counters;
mod event;
pub mod extension;
mod family;
mod flow;
mod fragment;
pub mod icmp;
mod instance;
mod ip;
pub mod mss;
mod network;
mod next_hop;
mod outcome;
mod packet;
mod ports;
mod rule;
pub mod sctp;
mod subscriber;
mod sweep;
pub mod tcp;
mod timeouts;
mod trace;
mod tuple;

pub use bytes::Bytes;
pub use config::{Config, RuleSet};
pub use counters::{Directional, RuleCounters, Traffic};
pub use event::{Change, Either, EndOrder, FlowEvent};
pub use family::{Family, V4, V6};
pub use flow::{Exchange, Flow, FlowState, Translation};
pub use fragment::{FirstFragment, Fragment, FragmentKey, HELD_LEN, HeldFragment, Part};
pub use instance::{Identity, InstanceInfo, LAYOUT_VERSION, Reloads};
pub use ip::{ETHERNET_HEADER_LEN, Ipv4Header, Ipv6Header, NetworkHeader};
pub use network::{Address, Ipv4Address, Ipv6Address, Pair, Port, Ports, protocol};
pub use next_hop::{NEXT_HOPS, NextHop, NextHopRef};
pub use outcome::{Outcome, Verdict};
pub use packet::{
    ECHO_IDENTIFIER, FlatKind, ICMP_HEADER_LEN, IcmpHeader, PacketKind, TransportHeader,
};
pub use ports::{Candidates, NatRange};
pub use rule::{AddressKey, Rule, RuleKey};
pub use subscriber::Subscriber;
pub use sweep::SweepItem;
pub use timeouts::Timeouts;
pub use trace::{Decision, TRACE_FRAME_LEN, TraceFilter, TraceRecord};
pub use tuple::{Side, Tuple};
