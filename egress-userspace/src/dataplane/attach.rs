//! Attaching the kernel half to the interfaces.

use std::{fmt, io};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    tc::{NlOptions, TcAttachOptions, TcError, qdisc_add_clsact, qdisc_detach_program},
};
use bytemuck::Zeroable as _;
use egress_common::Config;
use serde::Serialize;
use thiserror::Error;

use super::load::{Dataplane, LoadError, PROGRAMS};
use crate::interface::{Interface, Interfaces};

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// By a link to the interface's own hook (Linux 6.6). The kernel detaches it when the router's process ends.
    Tcx,
    /// By a filter on a `clsact` qdisc. It stays when the process is killed.
    Clsact,
}

impl fmt::Display for AttachMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        })
    }
}

/// Why a program could not be attached.
#[derive(Debug, Error)]
pub enum AttachError {
    /// The kernel refused.
    #[error("could not attach {program} to {interface} by {mode}: {source}")]
    Refused {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: String,
        /// How it was tried.
        mode: AttachMode,
        /// What the kernel said.
        source: ProgramError,
    },
    /// The program is not there.
    #[error(transparent)]
    Program(#[from] LoadError),
}

/// What is attached, and how it comes off again.
#[derive(Debug)]
pub struct Attachment {
    /// How the programs are attached.
    pub mode: AttachMode,
    interfaces: [u32; 2],
}

impl Dataplane {
    /// Attaches both programs: to the cluster interface and to the egress interface.
    ///
    /// Without a wish it is tried by TCX, and by clsact where the kernel does not know that.
    ///
    /// # Errors
    ///
    /// If the kernel refuses. What was attached by then goes with the dataplane.
    pub fn attach(
        &mut self,
        cluster: &Interface,
        egress: &Interface,
        wish: Option<AttachMode>,
    ) -> Result<Attachment, AttachError> {
        let mode = match wish {
            Some(mode) => {
                self.attach_one(PROGRAMS[0], cluster, mode)?;
                mode
            }
            None => match self.attach_one(PROGRAMS[0], cluster, AttachMode::Tcx) {
                Ok(()) => AttachMode::Tcx,
                Err(AttachError::Refused { source, .. }) if is_unknown_to_the_kernel(&source) => {
                    self.attach_one(PROGRAMS[0], cluster, AttachMode::Clsact)?;
                    AttachMode::Clsact
                }
                Err(error) => return Err(error),
            },
        };
        self.attach_one(PROGRAMS[1], egress, mode)?;
        Ok(Attachment {
            mode,
            interfaces: [cluster.index, egress.index],
        })
    }

    fn attach_one(
        &mut self,
        program: &'static str,
        interface: &Interface,
        mode: AttachMode,
    ) -> Result<(), AttachError> {
        let refused = |source| AttachError::Refused {
            program,
            interface: interface.name.clone(),
            mode,
            source,
        };
        let options = match mode {
            AttachMode::Tcx => TcAttachOptions::TcxOrder(LinkOrder::default()),
            AttachMode::Clsact => {
                match qdisc_add_clsact(&interface.name) {
                    Ok(()) => {}
                    // There already: another program's, and that is fine.
                    Err(error) if is_already_there(&error) => {}
                    Err(error) => return Err(refused(error.into())),
                }
                TcAttachOptions::Netlink(NlOptions::default())
            }
        };
        let classifier: &mut SchedClassifier = self.program(program)?;
        classifier
            .attach_with_options(&interface.name, TcAttachType::Ingress, options)
            .map_err(refused)?;
        Ok(())
    }
}

impl Attachment {
    /// Takes the programs off the interfaces, and the qdiscs that were there for them.
    pub async fn detach(self, mut dataplane: Dataplane, interfaces: &Interfaces) {
        // The kernel frees a program a while after it is detached; until then it would still be taken for a router.
        if let Err(error) = dataplane.maps.set_config(&Config::zeroed()) {
            log::warn!("{error}");
        }
        // The links go with their programs.
        drop(dataplane);
        if self.mode == AttachMode::Clsact {
            for index in self.interfaces {
                drop_empty_clsact(interfaces, index).await;
            }
        }
    }
}

/// Takes the clsact qdisc off an interface if nobody has a filter on it.
pub(super) async fn drop_empty_clsact(interfaces: &Interfaces, index: u32) {
    let dropped = match interfaces.has_clsact_filters(index).await {
        Ok(true) => return,
        Ok(false) => interfaces.delete_clsact(index).await,
        Err(error) => Err(error),
    };
    if let Err(error) = dropped {
        log::debug!("interface {index} has no clsact qdisc to take off: {error}");
    }
}

/// Takes off what a killed router has left on an interface by clsact. Whether there was anything.
///
/// # Errors
///
/// If the kernel refuses.
pub(super) fn detach_leftover(program: &str, interface: &str) -> Result<bool, TcError> {
    match qdisc_detach_program(interface, TcAttachType::Ingress, program) {
        Ok(()) => Ok(true),
        Err(TcError::IoError(error)) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Before 6.6 the kernel answers EINVAL to an attach type that it does not know.
fn is_unknown_to_the_kernel(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error) if error.io_error.raw_os_error() == Some(nix::libc::EINVAL))
}

fn is_already_there(error: &TcError) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error() == Some(nix::libc::EEXIST);
        }
        source = error.source();
    }
    matches!(error, TcError::AlreadyAttached)
}
