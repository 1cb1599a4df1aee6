//! What an operator does to a running router: restarts, upgrades, changes of the spec; and that traffic does not notice.

mod edits;
mod library;
mod live;
mod pod;
mod reload;
mod takeover;
mod under_load;
mod versions;
