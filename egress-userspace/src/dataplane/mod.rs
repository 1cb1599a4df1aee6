//! The dataplane: loads, fills, attaches and finds the kernel half, and reads what it records.

mod attach;
mod discover;
mod events;
mod expiry;
mod instance_lock;
mod load;
mod maps;
mod maps_error;
mod next_hops;
mod pins;
mod programs;
mod raw;
mod report;
mod rules;
mod subscribers;
mod trace;

pub use attach::{AttachError, AttachMode, Attachment};
pub use discover::{DiscoverError, Instance, attached_by_tcx, discover, pinned_under};
pub use events::FlowChange;
pub use expiry::Swept;
pub use instance_lock::{InstanceLock, LockError};
pub use load::{Dataplane, LoadError, Options};
pub use maps::{FamilyMaps, Maps};
pub use maps_error::MapsError;
pub use next_hops::{NextHopCounts, NextHops, NextHopsError};
pub use pins::{InterfacePair, PinnedState, Pins, PinsError, RETIRED_MAPS, ReplacedDataplane};
pub use programs::PROGRAMS;
pub use report::{Endpoint, FlowKey, FlowReport, OutcomeReport, RuleReport, Target, TrafficReport};
pub use rules::{RulesChange, RulesError};
pub use subscribers::{ListenError, Listener, Subscription};
pub use trace::{FoundFlow, PacketReport, TracedPacket};
