//! The idle timeouts of flows.

use bytemuck::{Pod, Zeroable};

use crate::{sctp, tcp};

macro_rules! timeouts {
    ($($(#[doc = $doc:literal])+ $name:ident = $seconds:expr;)+) => {
        /// Idle timeouts in seconds. Names and defaults are netfilter's (`net.netfilter.nf_conntrack_*_timeout*`), so
        /// that a flow lives here at least as long as it does there.
        #[repr(C)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
        pub struct Timeouts {
            $($(#[doc = $doc])+ pub $name: u32,)+
        }

        impl Timeouts {
            /// Netfilter's defaults.
            pub const DEFAULT: Self = Self {
                $($name: $seconds,)+
            };

            /// The names of all timeouts.
            pub const NAMES: &[&str] = &[$(stringify!($name),)+];

            /// The timeout with this name.
            pub fn get_mut(&mut self, name: &str) -> Option<&mut u32> {
                match name {
                    $(stringify!($name) => Some(&mut self.$name),)+
                    _ => None,
                }
            }

            /// All timeouts: name, seconds, and when the timeout applies.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, u32, &'static str)> {
                [$((stringify!($name), self.$name, concat!($($doc),+).trim_ascii()),)+].into_iter()
            }
        }
    };
}

timeouts! {
    /// TCP: a SYN without an answer.
    tcp_syn_sent = 120;
    /// TCP: a SYN-ACK that the client has not acknowledged.
    tcp_syn_recv = 60;
    /// TCP: an open connection.
    tcp_established = 5 * 24 * 3600;
    /// TCP: the client has closed.
    tcp_fin_wait = 120;
    /// TCP: the server has closed.
    tcp_close_wait = 60;
    /// TCP: both have closed.
    tcp_time_wait = 120;
    /// TCP: the connection was reset.
    tcp_close = 10;
    /// TCP: opened in the middle, without an answer.
    tcp_unacknowledged = 300;
    /// UDP: no answer, or both directions for less than two seconds.
    udp = 30;
    /// UDP: both directions, for longer than two seconds.
    udp_stream = 120;
    /// SCTP: an INIT, until the client sends a COOKIE ECHO.
    sctp_cookie_wait = 3;
    /// SCTP: a COOKIE ECHO without an answer.
    sctp_cookie_echoed = 3;
    /// SCTP: an open association.
    sctp_established = 210;
    /// SCTP: one side has started the shutdown.
    sctp_shutdown = 3;
    /// SCTP: the association was aborted.
    sctp_closed = 10;
    /// SCTP: opened in the middle, without an answer.
    sctp_heartbeat_sent = 30;
    /// Echo: with or without a reply.
    icmp = 30;
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Timeouts {
    /// The timeout of a TCP connection in this state, in seconds.
    pub const fn tcp(&self, state: tcp::State) -> u32 {
        match state {
            tcp::State::SynSent => self.tcp_syn_sent,
            tcp::State::SynReceived => self.tcp_syn_recv,
            tcp::State::Unanswered => self.tcp_unacknowledged,
            tcp::State::Established => self.tcp_established,
            tcp::State::FinWait => self.tcp_fin_wait,
            tcp::State::CloseWait => self.tcp_close_wait,
            tcp::State::TimeWait => self.tcp_time_wait,
            tcp::State::Close => self.tcp_close,
        }
    }

    /// The timeout of an SCTP association in this state, in seconds.
    pub const fn sctp(&self, state: sctp::State) -> u32 {
        match state {
            sctp::State::CookieWait => self.sctp_cookie_wait,
            sctp::State::CookieEchoed => self.sctp_cookie_echoed,
            sctp::State::Unanswered => self.sctp_heartbeat_sent,
            sctp::State::Established => self.sctp_established,
            sctp::State::Shutdown => self.sctp_shutdown,
            sctp::State::Closed => self.sctp_closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_timeout_is_found_by_its_name() {
        let mut timeouts = Timeouts::DEFAULT;
        for (number, name) in (1..).zip(Timeouts::NAMES) {
            *timeouts.get_mut(name).expect("it is in the list") = number;
        }
        assert!(timeouts.iter().map(|(_, seconds, _)| seconds).eq(1..=17));
        assert_eq!(timeouts.get_mut("tcp"), None);
    }
}
