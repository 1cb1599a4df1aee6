//! Metrics and health: what a monitoring system and an orchestrator ask a running router, by HTTP.
//!
//! The run loop owns the maps, on one thread. The listener puts each question into a bounded channel and the loop answers
//! it between two other events ([`Endpoint::question`], [`Question::answer`]); all that takes time, such as walking the
//! flow table, is done outside of the loop.

mod census;
mod encode;
mod health;
mod http;
pub mod registry;
mod snapshot;
mod state;

pub use http::{Endpoint, ListenError, Question};
pub use state::{Neighbours, Reloads, RunState};
