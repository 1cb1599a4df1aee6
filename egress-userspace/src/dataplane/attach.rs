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
    /// Interfaces that have got a clsact qdisc from us.
    added_clsact: Vec<u32>,
}

impl Dataplane {
    /// Attaches both programs: to the cluster interface and to the egress interface.
    ///
    /// Without a wish it is tried by TCX, and by clsact where the kernel does not know that.
    ///
    /// # Errors
    ///
    /// If the kernel refuses. Nothing is attached then.
    pub fn attach(
        &mut self,
        cluster: &Interface,
        egress: &Interface,
        wish: Option<AttachMode>,
    ) -> Result<Attachment, AttachError> {
        let mode = match wish {
            Some(mode) => mode,
            None => match self.attach_one(PROGRAMS[0], cluster, AttachMode::Tcx) {
                Ok(_) => {
                    self.attach_one(PROGRAMS[1], egress, AttachMode::Tcx)?;
                    return Ok(Attachment {
                        mode: AttachMode::Tcx,
                        added_clsact: Vec::new(),
                    });
                }
                Err(AttachError::Refused { source, .. }) if is_unknown_to_the_kernel(&source) => {
                    AttachMode::Clsact
                }
                Err(error) => return Err(error),
            },
        };
        let mut added_clsact = Vec::new();
        for (program, interface) in PROGRAMS.into_iter().zip([cluster, egress]) {
            if self.attach_one(program, interface, mode)? {
                added_clsact.push(interface.index);
            }
        }
        Ok(Attachment { mode, added_clsact })
    }

    /// Attaches one program; tells whether the interface got a clsact qdisc for it.
    fn attach_one(
        &mut self,
        program: &'static str,
        interface: &Interface,
        mode: AttachMode,
    ) -> Result<bool, AttachError> {
        let refused = |source| AttachError::Refused {
            program,
            interface: interface.name.clone(),
            mode,
            source,
        };
        let mut added_clsact = false;
        let options = match mode {
            AttachMode::Tcx => TcAttachOptions::TcxOrder(LinkOrder::default()),
            AttachMode::Clsact => {
                match qdisc_add_clsact(&interface.name) {
                    Ok(()) => added_clsact = true,
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
        Ok(added_clsact)
    }
}

impl Attachment {
    /// Takes the programs off the interfaces, and the qdiscs that were added for them.
    pub async fn detach(self, mut dataplane: Dataplane, interfaces: &Interfaces) {
        // The kernel frees a program a while after it is detached; until then it would still be taken for a router.
        if let Err(error) = dataplane.maps.set_config(&Config::zeroed()) {
            log::warn!("{error}");
        }
        // The links go with their programs.
        drop(dataplane);
        for index in self.added_clsact {
            if let Err(error) = interfaces.delete_clsact(index).await {
                log::warn!("the clsact qdisc of interface {index} stays: {error}");
            }
        }
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
