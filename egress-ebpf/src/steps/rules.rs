//! The redirect rules.

use aya_ebpf::{
    bindings::{BPF_F_CURRENT_NETNS, bpf_sock, bpf_sock_tuple},
    helpers::{bpf_sk_lookup_udp, bpf_sk_release, bpf_skc_lookup_tcp},
};
use egress_common::{Address as _, Config, Outcome, Rule, RuleKey, Side, Tuple, protocol};

use super::addresses;
use crate::primitives::{family::KernelFamily, packet::Packet};

/// The rule for a client's packet that belongs to no flow: the rule of its port, or the fallback.
///
/// `set` is the rule set in force. `opens` is `true` if the packet opens a new connection.
#[inline(always)]
pub fn find<F: KernelFamily>(
    packet: &Packet,
    config: &Config,
    set: u8,
    tuple: &Tuple<F::Address>,
    opens: bool,
) -> Result<Rule<F::Address>, Outcome> {
    if !addresses::is_own::<F>(Side::Cluster, tuple.addresses.destination) {
        return Err(Outcome::NotForRouter);
    }
    let key = RuleKey::new(set, tuple.protocol, tuple.ports.destination);
    // SAFETY: userspace replaces a rule by updating its element. The kernel keeps the old memory until this program
    // ends.
    if let Some(rule) = unsafe { F::rules().get(key) } {
        return Ok(*rule);
    }
    let rules = config.rule_set(set);
    let fallback = F::fallback(rules);
    if fallback.is_unspecified() || is_of_a_local_socket::<F>(packet, tuple) {
        return Err(if opens && tuple.protocol == protocol::SCTP {
            // The pod's own stack would send an ABORT if it had SCTP.
            Outcome::SctpRefused
        } else {
            Outcome::NoRule
        });
    }
    Ok(Rule::fallback(
        fallback,
        tuple.ports.destination,
        rules.fallback_rule,
    ))
}

/// Returns `true` if a socket of the pod expects this packet: a listener, for example for health checks, or a
/// connection that the pod itself has opened. The fallback does not apply to those.
#[inline(always)]
fn is_of_a_local_socket<F: KernelFamily>(packet: &Packet, tuple: &Tuple<F::Address>) -> bool {
    // `struct bpf_sock_tuple` has the same layout as the beginning of a tuple.
    let len = (size_of_val(&tuple.addresses) + size_of_val(&tuple.ports)) as u32;
    let sock_tuple = core::ptr::from_ref(tuple)
        .cast_mut()
        .cast::<bpf_sock_tuple>();
    let netns = BPF_F_CURRENT_NETNS as u64;
    let ctx = packet.skb().cast();
    // SAFETY: the context is valid while the program runs, and the tuple is longer than `len`.
    let socket: *mut bpf_sock = unsafe {
        match tuple.protocol {
            protocol::TCP => bpf_skc_lookup_tcp(ctx, sock_tuple, len, netns, 0),
            protocol::UDP => bpf_sk_lookup_udp(ctx, sock_tuple, len, netns, 0),
            _ => return false,
        }
    };
    if socket.is_null() {
        return false;
    }
    // SAFETY: the lookup took a reference, which is released once.
    unsafe { bpf_sk_release(socket.cast()) };
    true
}
