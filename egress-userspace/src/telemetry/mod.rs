//! What a running router reports: metrics, health and the flow log.

pub mod flow_log;
pub mod flow_log_writer;
pub mod metrics;
