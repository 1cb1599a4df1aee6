//! ICMP and ICMPv6 messages.

/// What a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Asks for an answer with the same identifier.
    EchoRequest,
    /// The answer.
    EchoReply,
    /// Tells of a packet that could not be delivered, and contains its beginning.
    Error,
    /// Anything else.
    Other,
}

impl Kind {
    /// Of an ICMP message type (RFC 792).
    #[inline(always)]
    pub const fn of_v4(message_type: u8) -> Self {
        match message_type {
            0 => Self::EchoReply,
            8 => Self::EchoRequest,
            // Destination unreachable, source quench, time exceeded, parameter problem. Not redirect (5): routes are no
            // business of hosts behind a router.
            3 | 4 | 11 | 12 => Self::Error,
            _ => Self::Other,
        }
    }

    /// Of an ICMPv6 message type (RFC 4443).
    #[inline(always)]
    pub const fn of_v6(message_type: u8) -> Self {
        match message_type {
            128 => Self::EchoRequest,
            129 => Self::EchoReply,
            // Destination unreachable, packet too big, time exceeded, parameter problem.
            1..=4 => Self::Error,
            _ => Self::Other,
        }
    }
}
