//! What the run loop knows and no map says.

use std::{net::IpAddr, time::SystemTime};

use crate::net::interface::Interface;

/// The router as its run loop sees it, for metrics and health.
#[derive(Clone, Debug)]
pub struct RunState {
    /// When the process was started.
    pub started: SystemTime,
    /// Whether the kernel half is attached to both interfaces.
    pub attached: bool,
    /// The interface on the cluster network.
    pub cluster: Interface,
    /// The interface on the external network.
    pub egress: Interface,
    /// The reserved addresses, which the egress interface has to have.
    pub reserved: Vec<IpAddr>,
    /// The servers of the rules, and the fallback.
    pub servers: Vec<IpAddr>,
    /// How the config has fared.
    pub reloads: Reloads,
    /// The next hops on the cluster network, and on the external one.
    pub next_hops: [Neighbours; 2],
}

/// How changes of the config have fared since the process was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloads {
    /// Changes that were applied; what the process was started with is none.
    pub applied: u64,
    /// Changes that were refused.
    pub refused: u64,
    /// When a config was applied last; the start counts.
    pub last_applied: SystemTime,
    /// Why the last change was refused; `None` if it was applied.
    pub last_error: Option<String>,
}

impl Reloads {
    /// Before any change: the config that the process was started with is in force.
    pub const fn new(now: SystemTime) -> Self {
        Self {
            applied: 0,
            refused: 0,
            last_applied: now,
            last_error: None,
        }
    }

    /// Notes a change that was applied.
    pub fn apply(&mut self, now: SystemTime) {
        self.applied += 1;
        self.last_applied = now;
        self.last_error = None;
    }

    /// Notes a change that was refused: the rules are those of the last one that was applied.
    pub fn refuse(&mut self, error: impl Into<String>) {
        self.refused += 1;
        self.last_error = Some(error.into());
    }
}

/// How many next hops of one side there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// Those whose MAC address the kernel would use.
    pub good: usize,
    /// Those that it would have to ask first.
    pub unresolved: usize,
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_refusal_stands_until_a_change_is_applied() {
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
