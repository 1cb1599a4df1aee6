//! The kernel half's programs, by name.

/// Those that are attached: to the cluster interface and to the egress interface.
pub const PROGRAMS: [&str; 2] = ["eth0_ingress", "net1_ingress"];

/// The program that starts the timer which ends idle flows.
pub(super) const START_SWEEP: &str = "start_sweep";

/// The program that ends a flow.
pub(super) const END_FLOW: &str = "end_flow";
