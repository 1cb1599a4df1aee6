//! What a running router tells others: metrics, health and the flow log.

pub mod flow_log;
pub mod flow_log_writer;
pub mod metrics;
