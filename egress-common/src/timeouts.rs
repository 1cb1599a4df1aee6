//! How long an idle flow lives.

use crate::tcp::State;

/// Timeouts in seconds after a flow's last packet. The default is netfilter's, so that nothing that lives there dies here
/// (`net/netfilter/nf_conntrack_proto_{tcp,udp}.c`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A SYN without an answer.
    pub tcp_syn_sent: u32,
    /// A SYN-ACK that the client has not acknowledged.
    pub tcp_syn_received: u32,
    /// An open connection; RFC 5382 asks for at least 2 hours and 4 minutes.
    pub tcp_established: u32,
    /// The client has closed.
    pub tcp_fin_wait: u32,
    /// The server has closed.
    pub tcp_close_wait: u32,
    /// Both have closed.
    pub tcp_time_wait: u32,
    /// The connection was reset.
    pub tcp_close: u32,
    /// Picked up in the middle, and not answered.
    pub tcp_unanswered: u32,
    /// UDP without an answer.
    pub udp_unreplied: u32,
    /// UDP in both directions; RFC 4787 asks for at least 2 minutes.
    pub udp_replied: u32,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Timeouts {
    /// Netfilter's.
    pub const DEFAULT: Self = Self {
        tcp_syn_sent: 120,
        tcp_syn_received: 60,
        tcp_established: 5 * 24 * 3600,
        tcp_fin_wait: 120,
        tcp_close_wait: 60,
        tcp_time_wait: 120,
        tcp_close: 10,
        tcp_unanswered: 300,
        udp_unreplied: 30,
        udp_replied: 120,
    };

    /// The timeout of a TCP connection in this state, in seconds.
    pub const fn tcp(&self, state: State) -> u32 {
        match state {
            State::SynSent => self.tcp_syn_sent,
            State::SynReceived => self.tcp_syn_received,
            State::Unanswered => self.tcp_unanswered,
            State::Established => self.tcp_established,
            State::FinWait => self.tcp_fin_wait,
            State::CloseWait => self.tcp_close_wait,
            State::TimeWait => self.tcp_time_wait,
            State::Close => self.tcp_close,
        }
    }
}
