//! The names of the kernel half's programs.

/// The programs that are attached, to the cluster interface and to the egress interface.
pub const PROGRAMS: [&str; 2] = ["eth0_ingress", "net1_ingress"];

/// The program that starts the sweep timer.
pub(super) const START_SWEEP: &str = "start_sweep";

/// The program that ends a flow.
pub(super) const END_FLOW: &str = "end_flow";
