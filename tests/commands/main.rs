//! The commands of `egress-router` as a user meets them: what they print, their exit codes, and what they leave behind.

mod address_changes;
mod background;
mod expiry;
mod explain;
mod flows;
mod following;
mod inspection;
mod lab;
mod lifecycle;
mod logging;
mod metrics;
mod object;
mod refusals;
mod rules;
mod shell;
mod terminal;
mod top;
mod tracing;
mod unprivileged;
