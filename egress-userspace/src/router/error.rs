//! Why a router does not start, go on, or reload.

use std::{error::Error, io};

use aya::programs::tc::TcError;
use egress_api::LoadError as SpecError;
use thiserror::Error;

use crate::{
    dataplane::{AttachError, DiscoverError, LoadError, MapsError, PinsError, RulesError},
    net::{interface::InterfaceError, kernel::KernelError},
    telemetry::{flow_log_writer::FlowLogError, metrics::ListenError},
};

/// Why a router did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Another router has one of the interfaces.
    #[error(
        "another egress router ({}) is attached to {interface}; stop that one first, \
         or look at it with `egress-router status`",
        .pid.map_or_else(|| "whose process is not to be seen from here".to_owned(), |pid| format!("process {pid}"))
    )]
    AlreadyRunning {
        /// Its process, if it can be seen.
        pid: Option<u32>,
        /// The interface.
        interface: String,
    },
    /// A dataplane by tcx comes before ours, and decides what becomes of packets, for as long as it is pinned.
    #[error(
        "the dataplane of an earlier router is attached to {interface}, and is pinned where this one does not look: name its \
         directory by --pin-path to take it over, or remove that directory (rm -r) to take it off"
    )]
    StillAttached {
        /// The interface.
        interface: String,
    },
    /// The dataplane has to be pinned, and cannot be.
    #[error("--keep needs a place for the dataplane")]
    NotPinnable(#[source] PinsError),
    /// The pod's own sockets have every port.
    #[error(
        "net.ipv4.ip_local_port_range covers every port: none is left for flows; make it smaller"
    )]
    NoNatPort,
    /// The network namespace or one of its settings cannot be read.
    #[error("{what}")]
    Unreadable {
        /// What could not be read, as a sentence.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// An interface is not as the resource needs it.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The kernel lacks something.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Other routers could not be looked for.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// Pins of an earlier dataplane could not be read or removed.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The kernel half was refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A map was refused.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The rules were refused.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// A program could not be attached.
    #[error(transparent)]
    Attach(#[from] Box<AttachError>),
    /// Filters of an earlier router could not be taken off.
    #[error(transparent)]
    Filter(#[from] TcError),
    /// There is no flow log.
    #[error(transparent)]
    FlowLog(#[from] FlowLogError),
    /// There is no listener for metrics.
    #[error(transparent)]
    Metrics(#[from] ListenError),
    /// The kernel half's log cannot be read.
    #[error(transparent)]
    KernelLog(#[from] aya_log::Error),
    /// A socket, or the runtime's reactor.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a running router cannot go on.
#[derive(Debug, Error)]
pub enum RunError {
    /// A map was refused.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// Idle flows could not be ended.
    #[error(transparent)]
    Sweep(#[from] LoadError),
    /// The kernel half's log cannot be waited for.
    #[error(transparent)]
    KernelLog(#[from] io::Error),
}

/// Why the rules of a changed resource are not in force.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// There is no file to read again.
    #[error("the spec came by standard input, which cannot be read again")]
    NoFile,
    /// The file cannot be read, or the resource has errors.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// An interface is not as the resource needs it.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The resource has the first address of a family.
    #[error(
        "spec.addresses: the router was started without an {family} address, and has no flow table for it; \
         start it anew"
    )]
    NewFamily {
        /// The family.
        family: egress_api::Family,
    },
    /// The rules were refused.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The rules are in force. The flows of those before should have ended.
    #[error("the rules are in force, but flows of those before may live on")]
    FlowsNotEnded(#[source] LoadError),
}

/// An error and its causes, on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
