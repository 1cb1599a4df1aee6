//! ICMP and ICMPv6 messages.

/// The kind of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request for a reply with the same identifier.
    EchoRequest,
    /// The reply.
    EchoReply,
    /// A report that a packet could not be delivered, with the beginning of that packet.
    Error,
    /// Anything else.
    Other,
}

impl Kind {
    /// The kind of an ICMP message type (RFC 792).
    #[inline(always)]
    pub const fn of_v4(message_type: u8) -> Self {
        match message_type {
            0 => Self::EchoReply,
            8 => Self::EchoRequest,
            // Destination unreachable, source quench, time exceeded, parameter problem. Not redirect (5): hosts behind
            // a router do not choose its routes.
            3 | 4 | 11 | 12 => Self::Error,
            _ => Self::Other,
        }
    }

    /// The kind of an ICMPv6 message type (RFC 4443).
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
