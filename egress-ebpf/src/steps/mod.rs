//! The steps of a packet's life. A step uses the primitives, and the steps above it in this list.

pub mod parse;

pub mod addresses;
pub mod next_hop;
pub mod rules;

pub mod flows;
pub mod ports;
pub mod rewrite;

pub mod events;
pub mod sweep;

pub mod forward;
pub mod limits;
pub mod mss;

pub mod connection;

pub mod fragments;
pub mod icmp;
pub mod open;

pub mod reject;
pub mod trace;
