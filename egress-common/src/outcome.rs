//! The reasons why a packet is not forwarded.
//!
//! An outcome's number is explicit and never reused, because counters in a pinned map outlive the program. To add an
//! outcome, take the next free number. To remove one, move its number and name to `retired`.

/// What the kernel does with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The packet continues unchanged to the pod's own network stack.
    Pass,
    /// The packet is dropped.
    Drop,
    /// The packet is dropped, and its sender gets an ICMP error or an SCTP ABORT.
    Reject,
}

macro_rules! outcomes {
    (
        $($(#[doc = $doc:literal])+ $variant:ident = $number:literal, $name:literal, $verdict:ident;)+
        retired { $($retired:literal = $retired_name:literal;)* }
    ) => {
        /// Why a packet was not forwarded. The number is the index in `COUNTERS`.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Outcome {
            $($(#[doc = $doc])+ $variant = $number,)+
        }

        impl Outcome {
            /// All outcomes, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Numbers and names of removed outcomes, which are never reused.
            pub const RETIRED: &[(u32, &str)] = &[$(($retired, $retired_name),)*];

            /// The outcome with this number.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Option<Self> {
                $(if number == $number {
                    return Some(Self::$variant);
                })+
                None
            }

            /// The verdict on the packet.
            #[inline(always)]
            pub const fn verdict(self) -> Verdict {
                match self {
                    $(Self::$variant => Verdict::$verdict,)+
                }
            }

            /// The outcome's name in `status`, logs and metrics.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The meaning of the outcome, in a sentence or two, for users.
            pub const fn description(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!($($doc),+).trim_ascii(),)+
                }
            }
        }
    };
}

outcomes! {
    /// Neither IPv4 nor IPv6, such as ARP.
    OtherEtherType = 0, "other_ethertype", Pass;
    /// A frame on the cluster interface that is not for the interface itself: with a VLAN tag, or for another MAC.
    OtherFrame = 1, "other_frame", Pass;
    /// Arrived on the cluster interface for an address that is not the router's.
    NotForRouter = 2, "not_for_router", Pass;
    /// No rule matches this protocol and port. The packet is the pod's own.
    NoRule = 3, "no_rule", Pass;
    /// An IP protocol that is not translated.
    OtherProtocol = 4, "other_protocol", Pass;
    /// A later fragment of a packet without a flow, or one that cannot be held.
    Fragment = 5, "fragment", Pass;
    /// A later fragment that arrived first. It is re-injected if the first one arrives within a second.
    FragmentHeld = 6, "fragment_held", Drop;
    /// A packet on a rule's port that belongs to no flow and cannot start one, such as a late FIN or RST.
    NotAnOpening = 7, "not_an_opening", Pass;
    /// Arrived on the egress interface for the interface's own address, and belongs to no flow.
    EgressOwn = 8, "egress_own", Pass;
    /// A TCP connection from the external network to the pod itself, or a fragment that may hide one.
    EgressRefused = 9, "egress_refused", Drop;
    /// Arrived on the egress interface for an address that the interface does not have.
    NotForEgress = 10, "not_for_egress", Drop;
    /// An ICMP error about a packet that belongs to no flow.
    UnrelatedIcmpError = 11, "unrelated_icmp_error", Drop;
    /// An SCTP association to a port without a rule. The sender gets an ABORT.
    SctpRefused = 12, "sctp_refused", Reject;
    /// The time to live or hop limit has run out.
    TtlExceeded = 13, "ttl_exceeded", Reject;
    /// Larger than the MTU of the outgoing interface.
    PacketTooBig = 14, "packet_too_big", Reject;
    /// The frame ends before the headers that it announces.
    Truncated = 15, "truncated", Drop;
    /// The IP header contradicts itself.
    Malformed = 16, "malformed", Drop;
    /// A fragment that would overwrite the transport header, or that ends beyond 64 KiB.
    BadFragment = 17, "bad_fragment", Drop;
    /// The flow table is full.
    FlowTableFull = 18, "flow_table_full", Drop;
    /// No free NAT port towards this server was found.
    NoFreePort = 19, "no_free_port", Drop;
    /// The rule's address family has no reserved address, or the maps are not filled yet.
    NotConfigured = 20, "not_configured", Drop;
    /// The kernel refused to change the packet.
    RewriteFailed = 21, "rewrite_failed", Drop;

    // One line for each removed outcome: `number = "name";`.
    retired {}
}

impl Outcome {
    /// The number of elements of `COUNTERS`. It leaves room for new outcomes, so that they do not change the map's
    /// size.
    pub const SLOTS: usize = 64;
}

/// Outcomes are in the order of their numbers, fit into `COUNTERS`, and do not share a number with another or a retired
/// one.
const _: () = {
    let all = Outcome::ALL;
    let mut index = 0;
    while index < all.len() {
        let number = all[index] as u32;
        assert!((number as usize) < Outcome::SLOTS, "no room in COUNTERS");
        assert!(
            index == 0 || (all[index - 1] as u32) < number,
            "not in order"
        );
        let mut retired = 0;
        while retired < Outcome::RETIRED.len() {
            assert!(Outcome::RETIRED[retired].0 != number, "a retired number");
            retired += 1;
        }
        index += 1;
    }
};

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn numbers_lead_back_to_outcomes_and_names_are_unique_and_not_retired() {
        let mut names: std::collections::BTreeSet<_> =
            Outcome::RETIRED.iter().map(|(_, name)| *name).collect();
        for outcome in Outcome::ALL {
            assert_eq!(Outcome::from_number(*outcome as u32), Some(*outcome));
            assert!(
                names.insert(outcome.name()),
                "{} is there twice",
                outcome.name()
            );
            assert!(
                outcome.description().ends_with('.'),
                "{:?}",
                outcome.description()
            );
        }
        assert_eq!(Outcome::from_number(u32::MAX), None);
    }
}
