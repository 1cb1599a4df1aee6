//! What an operator does to a running router: restarts, upgrades, changes of the spec. Traffic must not notice.

mod edits;
mod library;
mod live;
mod pod;
mod reload;
mod takeover;
mod under_load;
mod versions;
