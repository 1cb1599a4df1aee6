//! Attaches the kernel half to the interfaces.

use std::{fmt, fs, io, path::Path};

use aya::programs::{
    LinkOrder, ProgramError, SchedClassifier, TcAttachType,
    links::{FdLink, PinnedLink},
    tc::{
        NlOptions, SchedClassifierLink, TcAttachOptions, TcError, TcHandle, qdisc_add_clsact,
        qdisc_detach_program,
    },
};
use serde::Serialize;
use thiserror::Error;

use super::{
    load::{Dataplane, LoadError},
    pins::PinsError,
    programs::PROGRAMS,
};
use crate::net::interface::{Interface, Interfaces};

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// A link on the interface's tcx hook (Linux 6.6). The kernel detaches it when the process ends, unless it is
    /// pinned.
    Tcx,
    /// A filter on a `clsact` qdisc. It stays when the process is killed.
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
    #[error("could not attach {program} to {interface} with {mode}: {source}")]
    Refused {
        /// The program.
        program: &'static str,
        /// The interface.
        interface: String,
        /// The attach mode.
        mode: AttachMode,
        /// The kernel's error.
        source: ProgramError,
    },
    /// The object lacks the program.
    #[error(transparent)]
    Program(#[from] LoadError),
    /// Links of an earlier dataplane could not be removed.
    #[error(transparent)]
    Pins(#[from] PinsError),
}

/// The fixed priority and handle of the router's filters on a `clsact` qdisc, by which a later router can replace them.
const CLSACT_PRIORITY: u16 = 0xe6e5;
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 0xe6e5);

/// The attached programs. With tcx they are detached when this is dropped, unless they are pinned.
pub struct Attachment {
    /// The attach mode.
    pub mode: AttachMode,
    interfaces: [u32; 2],
    links: Vec<SchedClassifierLink>,
}

impl Dataplane {
    /// Attaches one program to each interface. Replaces each program of an earlier dataplane that is pinned or on a
    /// clsact qdisc in one step.
    ///
    /// If no mode is `requested`, tries tcx first, and clsact if the kernel has no tcx.
    ///
    /// # Errors
    ///
    /// If the kernel refuses. Programs that were already attached are detached again.
    pub fn attach(
        &mut self,
        cluster: &Interface,
        egress: &Interface,
        requested: Option<AttachMode>,
    ) -> Result<Attachment, AttachError> {
        let (mode, first) = match requested {
            Some(mode) => (mode, self.attach_one(PROGRAMS[0], cluster, mode)?),
            None => match self.attach_one(PROGRAMS[0], cluster, AttachMode::Tcx) {
                Ok(link) => (AttachMode::Tcx, link),
                Err(AttachError::Refused { source, .. }) if is_unknown_to_the_kernel(&source) => {
                    let mode = AttachMode::Clsact;
                    (mode, self.attach_one(PROGRAMS[0], cluster, mode)?)
                }
                Err(error) => return Err(error),
            },
        };
        let second = self.attach_one(PROGRAMS[1], egress, mode)?;
        if mode == AttachMode::Clsact
            && let Some(pins) = &self.pins
        {
            // The tcx links of a dataplane that was taken over would run first.
            pins.remove_links()?;
        }
        Ok(Attachment {
            mode,
            interfaces: [cluster.index, egress.index],
            links: vec![first, second],
        })
    }

    fn attach_one(
        &mut self,
        program: &'static str,
        interface: &Interface,
        mode: AttachMode,
    ) -> Result<SchedClassifierLink, AttachError> {
        let pin = self.pins.as_ref().map(|pins| pins.link(program));
        let classifier = self.program(program)?;
        let link = match mode {
            AttachMode::Tcx => attach_by_tcx(classifier, interface, pin.as_deref()),
            AttachMode::Clsact => attach_by_clsact(classifier, interface),
        };
        link.map_err(|source| AttachError::Refused {
            program,
            interface: interface.name.clone(),
            mode,
            source,
        })
    }
}

fn attach_by_tcx(
    classifier: &mut SchedClassifier,
    interface: &Interface,
    pin: Option<&Path>,
) -> Result<SchedClassifierLink, ProgramError> {
    if let Some(pin) = pin
        && let Ok(old) = PinnedLink::from_pin(pin)
    {
        let link = SchedClassifierLink::try_from(FdLink::from(old)).map_err(io::Error::other)?;
        match classifier.attach_to_link(link) {
            Ok(id) => return classifier.take_link(id),
            // Its interface is gone, so the link is no longer attached.
            Err(error) => log::debug!("{}: {error}", pin.display()),
        }
        fs::remove_file(pin)?;
    }
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = classifier.attach_with_options(&interface.name, TcAttachType::Ingress, options)?;
    let link = classifier.take_link(id)?;
    let Some(pin) = pin else { return Ok(link) };
    let link = FdLink::try_from(link).map_err(io::Error::other)?;
    let pinned = link.pin(pin).map_err(io::Error::other)?;
    Ok(SchedClassifierLink::try_from(FdLink::from(pinned)).map_err(io::Error::other)?)
}

fn attach_by_clsact(
    classifier: &mut SchedClassifier,
    interface: &Interface,
) -> Result<SchedClassifierLink, ProgramError> {
    match qdisc_add_clsact(&interface.name) {
        // Another program may have created the qdisc.
        Err(error) if !already_exists(&error) => return Err(error.into()),
        _ => {}
    }
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: CLSACT_PRIORITY,
        handle: CLSACT_HANDLE,
        classid: None,
    });
    let id = match classifier.attach_with_options(&interface.name, TcAttachType::Ingress, options) {
        Err(ProgramError::TcError(error)) if already_exists(&error) => {
            let earlier = SchedClassifierLink::attached(
                &interface.name,
                TcAttachType::Ingress,
                CLSACT_PRIORITY,
                CLSACT_HANDLE,
                None,
            )?;
            classifier.attach_to_link(earlier)?
        }
        id => id?,
    };
    classifier.take_link(id)
}

impl Attachment {
    /// Detaches the programs, and deletes clsact qdiscs without other filters.
    pub async fn detach(self, mut dataplane: Dataplane, interfaces: &Interfaces) {
        let instance = dataplane.maps.instance().ok();
        if let (Some(pins), Some(instance)) = (&dataplane.pins, instance)
            && pins.belongs_to(&instance.identity)
            && let Err(error) = pins.remove()
        {
            log::warn!("{error}");
        }
        if let Err(error) = dataplane.maps.retire() {
            log::warn!("{error}");
        }
        drop(self.links);
        drop(dataplane);
        if self.mode == AttachMode::Clsact {
            for index in self.interfaces {
                drop_empty_clsact(interfaces, index).await;
            }
        }
    }

    /// Leaves the programs attached, for the next process to take over. They must be pinned.
    pub fn leave(self) {
        for link in self.links {
            // The pin keeps a tcx link alive. Dropping a clsact link would remove the filter.
            if self.mode == AttachMode::Clsact {
                std::mem::forget(link);
            }
        }
    }
}

/// Deletes the clsact qdisc of an interface if it has no filters.
pub(super) async fn drop_empty_clsact(interfaces: &Interfaces, index: u32) {
    let dropped = match interfaces.has_clsact_filters(index).await {
        Ok(true) => return,
        Ok(false) => interfaces.delete_clsact(index).await,
        Err(error) => Err(error),
    };
    if let Err(error) = dropped {
        log::debug!("the clsact qdisc of interface {index} is not deleted: {error}");
    }
}

/// Removes the clsact filter that a killed router left on an interface. Returns whether there was one.
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

/// Before Linux 6.6 the kernel returns EINVAL for the unknown attach type.
fn is_unknown_to_the_kernel(error: &ProgramError) -> bool {
    matches!(error, ProgramError::SyscallError(error) if error.io_error.raw_os_error() == Some(nix::libc::EINVAL))
}

fn already_exists(error: &TcError) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error() == Some(nix::libc::EEXIST);
        }
        source = error.source();
    }
    matches!(error, TcError::AlreadyAttached)
}
