//! What can become of a packet that is not forwarded: the one list of reasons.
//!
//! An outcome's number is explicit and never reused, because it outlives the program in a pinned map. To add one, take the
//! next free number. To remove one, move its number and name to `retired`.

/// What the kernel does with the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// It goes on to the pod's own network stack, untouched.
    Pass,
    /// It is dropped.
    Drop,
    /// It is dropped, and its sender is told by an ICMP error, or by an ABORT of SCTP.
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
            /// Every outcome, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// Numbers of outcomes that are gone, with their names. They are never used again.
            pub const RETIRED: &[(u32, &str)] = &[$(($retired, $retired_name),)*];

            /// The outcome with this number.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Option<Self> {
                $(if number == $number {
                    return Some(Self::$variant);
                })+
                None
            }

            /// What is done with the packet.
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

            /// What the outcome means, in a sentence or two.
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
    /// No rule has this protocol and port: the pod's own.
    NoRule = 3, "no_rule", Pass;
    /// An IP protocol that is not translated.
    OtherProtocol = 4, "other_protocol", Pass;
    /// A fragment of a packet that is not a flow's, or whose flow is not known.
    Fragment = 5, "fragment", Pass;
    /// A fragment that came before the first one: it goes on when that comes within a second.
    FragmentHeld = 6, "fragment_held", Drop;
    /// A packet on a rule's port that belongs to no flow and cannot start one, such as a late FIN or RST.
    NotAnOpening = 7, "not_an_opening", Pass;
    /// Arrived on the egress interface for the interface's own address, and belongs to no flow.
    EgressOwn = 8, "egress_own", Pass;
    /// A TCP connection that somebody on the external network asks of the pod itself, or a fragment that may hide one.
    EgressRefused = 9, "egress_refused", Drop;
    /// Arrived on the egress interface for an address that the interface does not have.
    NotForEgress = 10, "not_for_egress", Drop;
    /// An ICMP error about a packet of no flow.
    UnrelatedIcmpError = 11, "unrelated_icmp_error", Drop;
    /// An SCTP association with a port that no rule has: refused by an ABORT.
    SctpRefused = 12, "sctp_refused", Reject;
    /// Its time to live, or hop limit, has run out.
    TtlExceeded = 13, "ttl_exceeded", Reject;
    /// Larger than the MTU of the way out.
    PacketTooBig = 14, "packet_too_big", Reject;
    /// The frame ends before the headers that it announces.
    Truncated = 15, "truncated", Drop;
    /// The IP header contradicts itself.
    Malformed = 16, "malformed", Drop;
    /// A fragment that would overwrite the first one's header, or reaches beyond the largest packet.
    BadFragment = 17, "bad_fragment", Drop;
    /// The flow table is full.
    FlowTableFull = 18, "flow_table_full", Drop;
    /// No NAT port towards this server was found free.
    NoFreePort = 19, "no_free_port", Drop;
    /// The rule's address family has no reserved address, or the maps are not filled yet.
    NotConfigured = 20, "not_configured", Drop;
    /// The kernel refused to change the packet.
    RewriteFailed = 21, "rewrite_failed", Drop;

    // A line here for each outcome that is removed: `number = "name";`.
    retired {}
}

impl Outcome {
    /// Elements of `COUNTERS`. There are more than outcomes, so that another one changes the size of no map.
    pub const SLOTS: usize = 64;
}

/// Outcomes are in order of their numbers, have room in `COUNTERS`, and none has the number of another or a retired one.
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
