//! The state of the run loop that is not in the maps.

use std::{net::IpAddr, time::SystemTime};

use crate::{dataplane::NextHopCounts, net::interface::Interface};

/// The run loop's view of the router, for metrics and health.
#[derive(Clone, Debug)]
pub struct RunState {
    /// When the process started.
    pub started: SystemTime,
    /// Whether the kernel half is attached to both interfaces.
    pub attached: bool,
    /// The interface on the cluster network.
    pub cluster: Interface,
    /// The interface on the external network.
    pub egress: Interface,
    /// The reserved addresses, which must be on the egress interface.
    pub reserved: Vec<IpAddr>,
    /// The servers of the rules and the fallback.
    pub servers: Vec<IpAddr>,
    /// The reloads so far.
    pub reloads: Reloads,
    /// The next hops on the cluster network and on the external network.
    pub next_hops: [NextHopCounts; 2],
}

/// The results of reloads since the process started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloads {
    /// Changes that were applied, without the config that the process started with.
    pub applied: u64,
    /// Changes that were refused.
    pub refused: u64,
    /// When a config was last applied, at the start or later.
    pub last_applied: SystemTime,
    /// Why the last change was refused; `None` if it was applied.
    pub last_error: Option<String>,
}

impl Reloads {
    /// No reload yet: the first config was applied at `now`.
    pub const fn new(now: SystemTime) -> Self {
        Self {
            applied: 0,
            refused: 0,
            last_applied: now,
            last_error: None,
        }
    }

    /// Records a change that was applied.
    pub fn apply(&mut self, now: SystemTime) {
        self.applied += 1;
        self.last_applied = now;
        self.last_error = None;
    }

    /// Records a change that was refused. The rules in force stay.
    pub fn refuse(&mut self, error: impl Into<String>) {
        self.refused += 1;
        self.last_error = Some(error.into());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_refusal_is_shown_until_a_change_is_applied() {
        let start = SystemTime::UNIX_EPOCH;
        let later = start + Duration::from_secs(9);
        let mut reloads = Reloads::new(start);
        reloads.refuse("spec.addresses: missing");
        assert_eq!(
            reloads.last_error.as_deref(),
            Some("spec.addresses: missing")
        );
        assert_eq!(reloads.last_applied, start);
        reloads.apply(later);
        let expected = Reloads {
            applied: 1,
            refused: 1,
            last_applied: later,
            last_error: None,
        };
        assert_eq!(reloads, expected);
    }
}
