//! Why a router cannot start, keep running, or reload.

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
    /// A running router holds the lock of one of the interfaces.
    #[error(
        "another egress router ({}) is attached to {interface}; stop it first, \
         or inspect it with `egress-router status`",
        .pid.map_or_else(|| "its process is not visible from here".to_owned(), |pid| format!("process {pid}"))
    )]
    AlreadyRunning {
        /// Its process ID, if the BPF programs of the kernel can be listed.
        pid: Option<u32>,
        /// The interface.
        interface: String,
    },
    /// An earlier dataplane is attached with tcx and pinned elsewhere. It would run before ours and decide about every
    /// packet.
    #[error(
        "the dataplane of an earlier router is attached to {interface}, and is pinned in a directory that this router \
         does not know: pass that directory with --pin-path to take the dataplane over, or remove the directory (rm -r) \
         to detach it"
    )]
    StillAttached {
        /// The interface.
        interface: String,
    },
    /// The dataplane must be pinned, and cannot be.
    #[error("--keep requires a pinned dataplane")]
    NotPinnable(#[source] PinsError),
    /// The pod's own sockets use every port.
    #[error(
        "net.ipv4.ip_local_port_range covers every port: none is left for flows; make it smaller"
    )]
    NoNatPort,
    /// The network namespace or one of its settings cannot be read.
    #[error("{what}")]
    Unreadable {
        /// What could not be read, as a clause: "could not …".
        what: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// An interface does not fit the resource.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The kernel lacks a feature, or the process a privilege.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The router could not search for other routers.
    #[error(transparent)]
    Discover(#[from] DiscoverError),
    /// Pins of an earlier dataplane could not be read or removed.
    #[error(transparent)]
    Pins(#[from] PinsError),
    /// The kernel refused the kernel half.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The kernel refused a map operation.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The rules could not be put in force.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// A program could not be attached.
    #[error(transparent)]
    Attach(#[from] Box<AttachError>),
    /// The filters of an earlier router could not be detached.
    #[error(transparent)]
    Filter(#[from] TcError),
    /// The flow log could not be started.
    #[error(transparent)]
    FlowLog(#[from] FlowLogError),
    /// The metrics server could not be started.
    #[error(transparent)]
    Metrics(#[from] ListenError),
    /// The log of the kernel half cannot be read.
    #[error(transparent)]
    KernelLog(#[from] aya_log::Error),
    /// A socket or the runtime's reactor failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Why a router cannot keep running.
#[derive(Debug, Error)]
pub enum RunError {
    /// The kernel refused a map operation.
    #[error(transparent)]
    Maps(#[from] MapsError),
    /// The sweep of idle flows failed.
    #[error(transparent)]
    Sweep(#[from] LoadError),
    /// Waiting for the log of the kernel half failed.
    #[error(transparent)]
    KernelLog(#[from] io::Error),
}

/// Why the rules of a changed resource are not in force.
#[derive(Debug, Error)]
pub enum ReloadError {
    /// The resource did not come from a file.
    #[error("the spec came from standard input, which cannot be read again")]
    NoFile,
    /// The file cannot be read, or the resource has errors.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// An interface does not fit the resource.
    #[error(transparent)]
    Interface(#[from] InterfaceError),
    /// The resource adds the first address of a family, which requires a restart.
    #[error(
        "spec.addresses: the router was started without an {family} address, and has no flow table for it; \
         restart it"
    )]
    NewFamily {
        /// The family.
        family: egress_api::Family,
    },
    /// The rules could not be put in force.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// The rules are in force, but the flows of the previous rules could not be ended.
    #[error("the rules are in force, but flows of the previous rules may continue")]
    FlowsNotEnded(#[source] LoadError),
}

/// Formats an error and its causes on one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
