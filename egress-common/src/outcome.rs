//! What can become of a packet that is not forwarded: the one list of reasons.

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
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $verdict:ident;)+) => {
        /// Why a packet was not forwarded. The number is the index in `COUNTERS`.
        #[repr(u32)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Outcome {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Outcome {
            /// Every outcome, in the order of its number.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The outcome with this number.
            #[inline(always)]
            pub const fn from_number(number: u32) -> Option<Self> {
                $(if number == Self::$variant as u32 {
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
    OtherEtherType = "other_ethertype", Pass;
    /// A frame on the cluster interface that is not for the interface itself: with a VLAN tag, or for another MAC.
    OtherFrame = "other_frame", Pass;
    /// Arrived on the cluster interface for an address that is not the router's.
    NotForRouter = "not_for_router", Pass;
    /// No rule has this protocol and port: the pod's own.
    NoRule = "no_rule", Pass;
    /// An IP protocol that is not translated.
    OtherProtocol = "other_protocol", Pass;
    /// A fragment of a packet that is not a flow's, or whose flow is not known.
    Fragment = "fragment", Pass;
    /// A fragment that came before the first one: it goes on when that comes within a second.
    FragmentHeld = "fragment_held", Drop;
    /// A packet on a rule's port that belongs to no flow and cannot start one, such as a late FIN or RST.
    NotAnOpening = "not_an_opening", Pass;
    /// Arrived on the egress interface for the interface's own address, and belongs to no flow.
    EgressOwn = "egress_own", Pass;
    /// A TCP connection that somebody on the external network asks of the pod itself, or a fragment that may hide one.
    EgressRefused = "egress_refused", Drop;
    /// Arrived on the egress interface for an address that the interface does not have.
    NotForEgress = "not_for_egress", Drop;
    /// An ICMP error about a packet of no flow.
    UnrelatedIcmpError = "unrelated_icmp_error", Drop;
    /// An SCTP association with a port that no rule has: refused by an ABORT.
    SctpRefused = "sctp_refused", Reject;
    /// Its time to live, or hop limit, has run out.
    TtlExceeded = "ttl_exceeded", Reject;
    /// Larger than the MTU of the way out.
    PacketTooBig = "packet_too_big", Reject;
    /// The frame ends before the headers that it announces.
    Truncated = "truncated", Drop;
    /// The IP header contradicts itself.
    Malformed = "malformed", Drop;
    /// A fragment that would overwrite the first one's header, or reaches beyond the largest packet.
    BadFragment = "bad_fragment", Drop;
    /// The flow table is full.
    FlowTableFull = "flow_table_full", Drop;
    /// No NAT port towards this server was found free.
    NoFreePort = "no_free_port", Drop;
    /// The rule's address family has no reserved address, or the maps are not filled yet.
    NotConfigured = "not_configured", Drop;
    /// The kernel refused to change the packet.
    RewriteFailed = "rewrite_failed", Drop;
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::*;

    #[test]
    fn numbers_are_positions_and_names_are_unique() {
        let mut names = std::collections::BTreeSet::new();
        for (index, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
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
    }
}
