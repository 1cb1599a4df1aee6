//! TCP connections, as far as a NAT must understand them.
//!
//! Each entry records the flags that its direction has shown ([`Seen`]), and the connection's [`State`] follows from
//! both entries. A packet of an established connection therefore changes nothing, and no packet has to look up the
//! other entry.

use bytemuck::{Pod, Zeroable};

/// The flags of a TCP header, in its 14th octet (RFC 9293, section 3.1).
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Flags(pub u8);

impl Flags {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Synchronize sequence numbers.
    pub const SYN: u8 = 0x02;
    /// Reset the connection.
    pub const RST: u8 = 0x04;
    /// The acknowledgment field is significant.
    pub const ACK: u8 = 0x10;

    const CONTROL: u8 = Self::FIN | Self::SYN | Self::RST | Self::ACK;

    /// The flags that open or end a connection.
    pub const SLOW_PATH: u8 = Self::SYN | Self::ENDS;
    /// The flags that end a connection.
    pub const ENDS: u8 = Self::FIN | Self::RST;

    /// Returns `true` for a request to open a connection: SYN without ACK, RST or FIN.
    #[inline(always)]
    pub const fn is_open_request(self) -> bool {
        self.0 & Self::CONTROL == Self::SYN
    }

    /// Returns `true` if a segment that belongs to no flow may open one.
    ///
    /// Besides a SYN, that is a plain ACK: the flow of its connection was lost, for example in a restart. Netfilter
    /// does the same (`nf_conntrack_tcp_loose`, on by default). A FIN, RST or SYN-ACK opens nothing.
    #[inline(always)]
    pub const fn may_open(self) -> bool {
        self.is_open_request() || self.0 & Self::CONTROL == Self::ACK
    }
}

/// Returns `true` if a FIN or RST with this sequence number is a credible end of the connection. `acknowledged` is the
/// last acknowledgment of its receiver. Both are in host byte order.
///
/// A host on the path knows the numbers; any other attacker must guess. The check does not use what the sender sent
/// before, because an attacker who forges this segment could have forged that as well. A genuine end is at the
/// acknowledged number, or ahead of it by the data in flight. If that is more than `AHEAD`, the receiver answers a
/// RST with a challenge ACK, and the sender repeats the RST with the exact number (RFC 5961, section 3.2).
#[inline(always)]
pub const fn is_credible_end(sequence: u32, acknowledged: u32) -> bool {
    sequence.wrapping_sub(acknowledged) <= AHEAD
}

/// How far a credible end may be ahead of the last acknowledgment: one segmentation-offload packet of the maximum size
/// (`GSO_MAX_SIZE` in `linux/netdevice.h`).
const AHEAD: u32 = 512 * 1024;

/// The flags that one direction of a connection has shown so far.
///
/// The bits are those of [`Flags`], which the wire format fixes. They are stored instead of the state, which follows
/// from them. SCTP chunks set [equivalent flags](crate::sctp::flags).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Seen {
    /// The flags, combined by or.
    pub flags: u8,
}

impl Seen {
    /// Before the first packet.
    pub const NOTHING: Self = Self { flags: 0 };

    /// Adds the flags of a segment.
    #[inline(always)]
    #[must_use]
    pub const fn with(self, flags: Flags) -> Self {
        Self {
            flags: self.flags | flags.0 & Flags::CONTROL,
        }
    }

    /// Returns `true` if any of `flags` has been seen.
    #[inline(always)]
    pub const fn any(self, flags: u8) -> bool {
        self.flags & flags != 0
    }
}

/// The state of a connection, with conntrack's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The client has sent a SYN.
    SynSent,
    /// The server has answered with a SYN-ACK.
    SynReceived,
    /// The flow was opened in the middle of the connection, and the server has not answered yet.
    Unanswered,
    /// Both sides have acknowledged.
    Established,
    /// The client has sent a FIN.
    FinWait,
    /// The server has sent a FIN.
    CloseWait,
    /// Both sides have sent a FIN.
    TimeWait,
    /// One side has sent a RST.
    Close,
}

impl State {
    /// Derives the state from the flags of both directions.
    pub const fn of(original: Seen, reply: Seen) -> Self {
        if original.any(Flags::RST) || reply.any(Flags::RST) {
            return Self::Close;
        }
        match (original.any(Flags::FIN), reply.any(Flags::FIN)) {
            (true, true) => Self::TimeWait,
            (true, false) => Self::FinWait,
            (false, true) => Self::CloseWait,
            (false, false) if !original.any(Flags::ACK) => {
                if reply.flags == 0 {
                    Self::SynSent
                } else {
                    Self::SynReceived
                }
            }
            (false, false) if reply.flags == 0 => Self::Unanswered,
            (false, false) => Self::Established,
        }
    }

    /// Returns `true` if a SYN on the same tuple may open a new connection, because this one has ended or is about to.
    pub const fn is_closing(self) -> bool {
        matches!(
            self,
            Self::FinWait | Self::CloseWait | Self::TimeWait | Self::Close
        )
    }

    /// Returns `true` if the connection is not established yet.
    pub const fn is_embryonic(self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived | Self::Unanswered)
    }

    /// The state's name, as conntrack writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::SynSent => "SYN_SENT",
            Self::SynReceived => "SYN_RECV",
            Self::Unanswered => "UNANSWERED",
            Self::Established => "ESTABLISHED",
            Self::FinWait => "FIN_WAIT",
            Self::CloseWait => "CLOSE_WAIT",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYN: Flags = Flags(Flags::SYN);
    const SYN_ACK: Flags = Flags(Flags::SYN | Flags::ACK);
    const ACK: Flags = Flags(Flags::ACK);
    const PSH_ACK: Flags = Flags(Flags::ACK | 0x08);
    const FIN_ACK: Flags = Flags(Flags::FIN | Flags::ACK);
    const RST: Flags = Flags(Flags::RST);

    fn seen(segments: &[Flags]) -> Seen {
        segments
            .iter()
            .fold(Seen::NOTHING, |seen, flags| seen.with(*flags))
    }

    #[test]
    fn a_connection_goes_through_its_states() {
        let steps: [(&[Flags], &[Flags], State); 10] = [
            (&[SYN], &[], State::SynSent),
            (&[SYN], &[SYN_ACK], State::SynReceived),
            (&[SYN, ACK], &[SYN_ACK], State::Established),
            (
                &[SYN, ACK, PSH_ACK],
                &[SYN_ACK, PSH_ACK],
                State::Established,
            ),
            (&[SYN, ACK, FIN_ACK], &[SYN_ACK], State::FinWait),
            (&[SYN, ACK], &[SYN_ACK, FIN_ACK], State::CloseWait),
            (&[SYN, ACK, FIN_ACK], &[SYN_ACK, FIN_ACK], State::TimeWait),
            (&[SYN, ACK], &[SYN_ACK, RST], State::Close),
            (&[ACK], &[], State::Unanswered),
            (&[ACK], &[ACK], State::Established),
        ];
        for (original, reply, expected) in steps {
            assert_eq!(
                State::of(seen(original), seen(reply)),
                expected,
                "after {original:?} and {reply:?}"
            );
        }
    }

    #[test]
    fn a_simultaneous_open_becomes_a_connection() {
        // RFC 9293, figure 8: both sides send a SYN, then both a SYN-ACK.
        assert_eq!(State::of(seen(&[SYN]), seen(&[SYN])), State::SynReceived);
        assert_eq!(
            State::of(seen(&[SYN, SYN_ACK]), seen(&[SYN, SYN_ACK])),
            State::Established
        );
    }

    #[test]
    fn an_end_is_believed_where_the_receiver_expects_it() {
        for (sequence, acknowledged, credible) in [
            (1000, 1000, true),
            (999, 1000, false),
            (1000 + AHEAD, 1000, true),
            (1001 + AHEAD, 1000, false),
            (5, u32::MAX - 5, true),
            (1 << 31, 0, false),
        ] {
            assert_eq!(
                is_credible_end(sequence, acknowledged),
                credible,
                "{sequence} when {acknowledged} was acknowledged"
            );
        }
    }

    #[test]
    fn only_a_syn_or_the_middle_of_a_connection_opens_a_flow() {
        for (flags, opens) in [
            (SYN, true),
            (ACK, true),
            (PSH_ACK, true),
            (SYN_ACK, false),
            (FIN_ACK, false),
            (RST, false),
            (Flags(0), false),
        ] {
            assert_eq!(flags.may_open(), opens, "{flags:?}");
        }
        // RFC 3168: an ECN-capable client sets ECE and CWR on its SYN.
        assert!(Flags(Flags::SYN | 0xc0).is_open_request());
    }
}
