//! The maps, with the names that `bpftool map` shows. BTF declares them, so that `bpftool` also prints the fields of
//! their values.
//!
//! These sizes apply to the object as it is. The userspace half changes them at load time according to its flags.

use aya_ebpf::{
    Global,
    bindings::bpf_timer,
    btf_maps::{Array, HashMap, LruHashMap, PerCpuArray, Queue, RingBuf},
    macros::btf_map,
};
use egress_common::{
    AddressKey, Config, FirstFragment, Flow, FragmentKey, HeldFragment, InstanceInfo, Ipv4Address,
    Ipv6Address, NextHop, NextHopRef, Outcome, Rule, RuleCounters, RuleKey, Subscriber, SweepItem,
    TraceFilter, Tuple,
};

use super::scratch::{EventBuffer, TempFlow, TraceBuffer};

/// Entries in a flow table. A flow has two.
const FLOWS: usize = 2 * 262_144;
/// Rules of one family: every port of three protocols.
const RULES: usize = 3 * 65_535;
/// Addresses of both interfaces.
const ADDRESSES: usize = 1024;
/// Packets with remembered first fragments. The oldest is evicted.
const FRAGMENTS: usize = 4096;
/// Held fragments. The oldest is evicted.
const HELD: usize = 1024;
/// Clients and servers with a known next hop.
const ROUTES: usize = 65_536;
/// Clients and servers whose next hop userspace has yet to resolve. The oldest is evicted.
const UNRESOLVED: usize = 1024;
/// Servers for which no free NAT port was found. The oldest is evicted.
const EXHAUSTED: usize = 256;
/// Size of a flow event ring buffer in bytes: 6,000 IPv4 or 4,000 IPv6 events.
const EVENTS_LEN: usize = 1 << 20;
/// Size of the trace ring buffer in bytes: 1,500 IPv4 or 1,200 IPv6 packets.
const TRACE_LEN: usize = 1 << 19;
/// Rules with counters of their own.
const COUNTED_RULES: usize = 1024;

pub type FlowMap<A> = HashMap<Tuple<A>, Flow<A>, FLOWS>;
pub type RuleMap<A> = HashMap<RuleKey, Rule<A>, RULES>;
pub type AddressMap<A> = HashMap<AddressKey<A>, u32, ADDRESSES>;
pub type FragmentMap<A> = LruHashMap<FragmentKey<A>, FirstFragment, FRAGMENTS>;
pub type HeldMap<A> = LruHashMap<FragmentKey<A>, HeldFragment, HELD>;
pub type RouteMap<A> = HashMap<AddressKey<A>, NextHopRef, ROUTES>;
/// The time when a packet last needed this next hop, from [`super::clock`].
pub type UnresolvedMap<A> = LruHashMap<AddressKey<A>, u64, UNRESOLVED>;
/// The time of the last failed search for a port, from [`super::clock`]. The key is the reply tuple without the NAT
/// port.
pub type ExhaustedMap<A> = LruHashMap<Tuple<A>, u64, EXHAUSTED>;
/// One item per flow.
pub type SweepQueue<A> = Queue<SweepItem<A>, { FLOWS / 2 }>;

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
pub static TEMP_FLOW_V4: PerCpuArray<TempFlow<Ipv4Address>, 1> = PerCpuArray::new();

#[btf_map]
pub static TEMP_FLOW_V6: PerCpuArray<TempFlow<Ipv6Address>, 1> = PerCpuArray::new();

#[btf_map]
pub static FRAGMENTS_V4: FragmentMap<Ipv4Address> = LruHashMap::new();

#[btf_map]
pub static FRAGMENTS_V6: FragmentMap<Ipv6Address> = LruHashMap::new();

#[btf_map]
pub static HELD_V4: HeldMap<Ipv4Address> = LruHashMap::new();

#[btf_map]
pub static HELD_V6: HeldMap<Ipv6Address> = LruHashMap::new();

/// The frame that is about to be held, and the first fragment while held ones are re-injected.
#[btf_map]
pub static TEMP_FRAMES: PerCpuArray<HeldFragment, 2> = PerCpuArray::new();

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

/// For processes only. No program reads it.
#[btf_map]
pub static INSTANCE: Array<InstanceInfo, 1> = Array::new();

#[btf_map]
pub static COUNTERS: PerCpuArray<u64, { Outcome::SLOTS }> = PerCpuArray::new();

/// Flows that were evicted.
#[btf_map]
pub static EVICTED: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The lease of each [`Subscriber`]: `CLOCK_MONOTONIC` in nanoseconds; 0 if nobody has subscribed.
#[btf_map]
pub static SUBSCRIBERS: Array<u64, { Subscriber::COUNT }> = Array::new();

/// Records that each [`Subscriber`] lost because its ring buffer was full.
#[btf_map]
pub static EVENTS_LOST: PerCpuArray<u64, { Subscriber::COUNT }> = PerCpuArray::new();

#[btf_map]
pub static TEMP_EVENT_V4: PerCpuArray<EventBuffer<Ipv4Address>, 2> = PerCpuArray::new();

#[btf_map]
pub static TEMP_EVENT_V6: PerCpuArray<EventBuffer<Ipv6Address>, 2> = PerCpuArray::new();

/// Read by the router's own flow log.
#[btf_map]
pub static FLOW_LOG: RingBuf<[u8; 0], EVENTS_LEN> = RingBuf::new();

/// Read by `flows --follow`.
#[btf_map]
pub static FOLLOW: RingBuf<[u8; 0], EVENTS_LEN> = RingBuf::new();

/// Read by `trace`.
#[btf_map]
pub static TRACE: RingBuf<[u8; 0], TRACE_LEN> = RingBuf::new();

#[btf_map]
pub static TRACE_FILTER: Array<TraceFilter, 1> = Array::new();

#[btf_map]
pub static TEMP_TRACE_V4: PerCpuArray<TraceBuffer<Ipv4Address>, 1> = PerCpuArray::new();

#[btf_map]
pub static TEMP_TRACE_V6: PerCpuArray<TraceBuffer<Ipv6Address>, 1> = PerCpuArray::new();

#[btf_map]
pub static RULE_COUNTERS: PerCpuArray<RuleCounters, COUNTED_RULES> = PerCpuArray::new();

#[btf_map]
pub static ERROR_LIMIT: PerCpuArray<ErrorLimit, 1> = PerCpuArray::new();

/// 1 if the kernel half ends idle flows (Linux 5.17); set by the loader.
#[unsafe(no_mangle)]
pub static KERNEL_EXPIRY: Global<u8> = Global::new(0);

/// The index of the cluster interface; set by the loader.
#[unsafe(no_mangle)]
pub static CLUSTER_IFINDEX: Global<u32> = Global::new(0);

/// The index of the egress interface; set by the loader.
#[unsafe(no_mangle)]
pub static EGRESS_IFINDEX: Global<u32> = Global::new(0);

/// 1 if the kernel has `bpf_ktime_get_coarse_ns` (5.11); set by the loader.
#[unsafe(no_mangle)]
pub static COARSE_CLOCK: Global<u8> = Global::new(0);

/// The value of `SWEEPER`. The kernel recognises the timer by the name of its type.
#[repr(C)]
pub struct Sweeper {
    pub timer: bpf_timer,
}

/// The value of `ERROR_LIMIT`: how many packets of the router's own a CPU has sent since `since_ns`.
#[repr(C)]
pub struct ErrorLimit {
    pub since_ns: u64,
    pub sent: u32,
    pub padding: u32,
}

/// The settings.
///
/// # Errors
///
/// [`Outcome::NotConfigured`] if the map has no such element.
#[inline(always)]
pub fn config() -> Result<&'static Config, Outcome> {
    CONFIG.get(0).ok_or(Outcome::NotConfigured)
}

/// This CPU's element of a scratch map.
///
/// # Safety
///
/// No other reference to the element may exist. Programs that packets run and the timer's callback do not interrupt
/// each other on a CPU.
#[inline(always)]
#[expect(clippy::mut_from_ref, reason = "each CPU has an element of its own")]
pub unsafe fn own<T, const LEN: usize>(
    map: &'static PerCpuArray<T, LEN>,
    index: u32,
) -> Option<&'static mut T> {
    // SAFETY: the pointer comes from a lookup, and the caller guarantees that no other reference exists.
    map.get_ptr_mut(index)
        .map(|element| unsafe { &mut *element })
}
