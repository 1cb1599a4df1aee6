//! The maps, by the names that `bpftool map` shows. They are declared by BTF, so that it prints their fields.
//!
//! The sizes are those of an object that is loaded as it is; the userspace half sets them by its flags.

pub use aya_ebpf::btf_maps::{HashMap, LruHashMap, Queue};
use aya_ebpf::{
    Global,
    btf_maps::{Array, PerCpuArray, RingBuf},
    macros::btf_map,
};
use egress_common::{
    Config, HeldFragment, InstanceInfo, Ipv4Address, Ipv6Address, NextHop, Outcome, RuleCounters,
    Subscriber, TraceFilter,
};

use crate::{
    events::Draft,
    family::{
        AddressMap, ExhaustedMap, FlowMap, FragmentMap, HeldMap, RouteMap, RuleMap, SweepQueue,
        UnresolvedMap,
    },
    reject::ErrorLimit,
    scratch::Scratch,
    sweep::Sweeper,
    trace::Traced,
};

/// Entries in a flow table; a flow has two.
pub const FLOWS: usize = 2 * 262_144;
/// Rules of one family: every port of three protocols.
pub const RULES: usize = 3 * 65_535;
/// Addresses of both interfaces.
pub const ADDRESSES: usize = 1024;
/// Packets whose fragments are under way. The oldest is forgotten for a new one.
pub const FRAGMENTS: usize = 4096;
/// Fragments that wait for the first one of their packet. The oldest is forgotten for a new one.
pub const HELD: usize = 1024;
/// Clients and servers whose next hop is known.
pub const ROUTES: usize = 65_536;
/// Those whose next hop is not known yet. The oldest is forgotten for a new one.
pub const UNRESOLVED: usize = 1024;
/// Servers towards which no NAT port was found free. The oldest is forgotten for a new one.
pub const EXHAUSTED: usize = 256;
/// Bytes of flow events that wait for a reader: those of 6,000 IPv4 flows, or 4,000 of IPv6.
const EVENTS_LEN: usize = 1 << 20;
/// Bytes of traced packets that wait for a reader: 1,500 of IPv4, or 1,200 of IPv6.
const TRACE_LEN: usize = 1 << 19;
/// Rules that are counted each by itself.
const COUNTED_RULES: usize = 1024;

#[btf_map]
pub static FLOWS_V4: FlowMap<Ipv4Address> = HashMap::new();

#[btf_map]
pub static RULES_V4: RuleMap<Ipv4Address> = HashMap::new();

#[btf_map]
pub static ADDRESSES_V4: AddressMap<Ipv4Address> = HashMap::new();

#[btf_map]
pub static FLOWS_V6: FlowMap<Ipv6Address> = HashMap::new();

#[btf_map]
pub static RULES_V6: RuleMap<Ipv6Address> = HashMap::new();

#[btf_map]
pub static ADDRESSES_V6: AddressMap<Ipv6Address> = HashMap::new();

#[btf_map]
pub static SCRATCH_V4: PerCpuArray<Scratch<Ipv4Address>, 1> = PerCpuArray::new();

#[btf_map]
pub static SCRATCH_V6: PerCpuArray<Scratch<Ipv6Address>, 1> = PerCpuArray::new();

#[btf_map]
pub static FRAGMENTS_V4: FragmentMap<Ipv4Address> = LruHashMap::new();

#[btf_map]
pub static FRAGMENTS_V6: FragmentMap<Ipv6Address> = LruHashMap::new();

#[btf_map]
pub static HELD_V4: HeldMap<Ipv4Address> = LruHashMap::new();

#[btf_map]
pub static HELD_V6: HeldMap<Ipv6Address> = LruHashMap::new();

/// Where a frame is put together that is to be held, and one is put aside for others.
#[btf_map]
pub static FRAMES: PerCpuArray<HeldFragment, 2> = PerCpuArray::new();

#[btf_map]
pub static NEXT_HOPS: Array<NextHop, { egress_common::NEXT_HOPS as usize }> = Array::new();

#[btf_map]
pub static ROUTES_V4: RouteMap<Ipv4Address> = HashMap::new();

#[btf_map]
pub static ROUTES_V6: RouteMap<Ipv6Address> = HashMap::new();

#[btf_map]
pub static UNRESOLVED_V4: UnresolvedMap<Ipv4Address> = LruHashMap::new();

#[btf_map]
pub static UNRESOLVED_V6: UnresolvedMap<Ipv6Address> = LruHashMap::new();

#[btf_map]
pub static EXHAUSTED_V4: ExhaustedMap<Ipv4Address> = LruHashMap::new();

#[btf_map]
pub static EXHAUSTED_V6: ExhaustedMap<Ipv6Address> = LruHashMap::new();

#[btf_map]
pub static SWEEP_V4: SweepQueue<Ipv4Address> = Queue::new();

#[btf_map]
pub static SWEEP_V6: SweepQueue<Ipv6Address> = Queue::new();

#[btf_map]
pub static SWEEPER: Array<Sweeper, 1> = Array::new();

#[btf_map]
pub static CONFIG: Array<Config, 1> = Array::new();

/// Of processes only: no program reads it.
#[btf_map]
pub static INSTANCE: Array<InstanceInfo, 1> = Array::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { Outcome::SLOTS }> = PerCpuArray::new();

/// Flows that were ended to make room for others.
#[btf_map]
pub static EVICTED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// Until when each [`Subscriber`] listens: `CLOCK_MONOTONIC` in nanoseconds, 0 for not at all.
#[btf_map]
pub static SUBSCRIBERS: Array<u64, { Subscriber::COUNT }> = Array::new();

/// Records of each [`Subscriber`] that a full ring buffer did not take.
#[btf_map]
pub static EVENTS_LOST: PerCpuArray<u64, { Subscriber::COUNT }> = PerCpuArray::new();

#[btf_map]
pub static DRAFT_V4: PerCpuArray<Draft<Ipv4Address>, 2> = PerCpuArray::new();

#[btf_map]
pub static DRAFT_V6: PerCpuArray<Draft<Ipv6Address>, 2> = PerCpuArray::new();

/// For the router's own flow log.
#[btf_map]
pub static FLOW_LOG: RingBuf<[u8; 0], EVENTS_LEN> = RingBuf::new();

/// For whoever follows the flows.
#[btf_map]
pub static FOLLOW: RingBuf<[u8; 0], EVENTS_LEN> = RingBuf::new();

/// For whoever traces packets.
#[btf_map]
pub static TRACE: RingBuf<[u8; 0], TRACE_LEN> = RingBuf::new();

#[btf_map]
pub static TRACE_FILTER: Array<TraceFilter, 1> = Array::new();

#[btf_map]
pub static TRACED_V4: PerCpuArray<Traced<Ipv4Address>, 1> = PerCpuArray::new();

#[btf_map]
pub static TRACED_V6: PerCpuArray<Traced<Ipv6Address>, 1> = PerCpuArray::new();

#[btf_map]
pub static RULE_COUNTERS: PerCpuArray<RuleCounters, COUNTED_RULES> = PerCpuArray::new();

#[btf_map]
pub static ERROR_LIMIT: PerCpuArray<ErrorLimit, 1> = PerCpuArray::new();

/// 1 where the kernel half ends idle flows by itself (Linux 5.17); set by the loader.
#[unsafe(no_mangle)]
pub static KERNEL_EXPIRY: Global<u8> = Global::new(0);

/// Index of the cluster interface; set by the loader.
#[unsafe(no_mangle)]
pub static CLUSTER_IFINDEX: Global<u32> = Global::new(0);

/// Index of the egress interface; set by the loader.
#[unsafe(no_mangle)]
pub static EGRESS_IFINDEX: Global<u32> = Global::new(0);

/// 1 where the kernel has `bpf_ktime_get_coarse_ns` (5.11); set by the loader.
#[unsafe(no_mangle)]
pub static COARSE_CLOCK: Global<u8> = Global::new(0);
