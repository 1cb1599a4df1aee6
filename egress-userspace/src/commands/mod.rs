//! The subcommands, one module each.

pub mod check;
pub mod completions;
pub mod explain;
pub mod flow_log;
pub mod flows;
pub mod follow;
pub mod instance;
pub mod man;
pub mod markdown;
pub mod output;
pub mod protocol;
pub mod rules;
pub mod run;
pub mod schema;
pub mod status;
pub mod terminal;
pub mod timeout;
pub mod top;
pub mod trace;
