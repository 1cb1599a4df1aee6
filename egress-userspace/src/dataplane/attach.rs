//! Attaching the kernel half to the interfaces.

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
    /// Links of an earlier dataplane could not be removed.
    #[error(transparent)]
    Pins(#[from] PinsError),
}

/// Where the router's filters are on a `clsact` qdisc, so that a later one can replace them.
const CLSACT_PRIORITY: u16 = 0xe6e5;
const CLSACT_HANDLE: TcHandle = TcHandle::new(0, 0xe6e5);

/// What is attached, and how it comes off again. By tcx it comes off when it is dropped, unless it is pinned.
pub struct Attachment {
    /// How the programs are attached.
    pub mode: AttachMode,
    interfaces: [u32; 2],
    links: Vec<SchedClassifierLink>,
}

impl Dataplane {
    /// Attaches both programs: to the cluster interface and to the egress interface. Where those of an earlier dataplane are
    /// pinned, or hang on a clsact qdisc, they are replaced in one step each.
    ///
    /// Without a wish it is tried by TCX, and by clsact where the kernel does not know that.
    ///
    /// # Errors
    ///
    /// If the kernel refuses. What was attached by then comes off again.
    pub fn attach(
        &mut self,
        cluster: &Interface,
        egress: &Interface,
        wish: Option<AttachMode>,
    ) -> Result<Attachment, AttachError> {
        let (mode, first) = match wish {
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
            // Links of a dataplane that was taken over would come first.
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
            // Its interface is gone: it is not attached to anything any more.
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
        // There already: another program's, and that is fine.
        Err(error) if !is_already_there(&error) => return Err(error.into()),
        _ => {}
    }
    let options = TcAttachOptions::Netlink(NlOptions {
        priority: CLSACT_PRIORITY,
        handle: CLSACT_HANDLE,
        classid: None,
    });
    let id = match classifier.attach_with_options(&interface.name, TcAttachType::Ingress, options) {
        Err(ProgramError::TcError(error)) if is_already_there(&error) => {
            let before = SchedClassifierLink::attached(
                &interface.name,
                TcAttachType::Ingress,
                CLSACT_PRIORITY,
                CLSACT_HANDLE,
                None,
            )?;
            classifier.attach_to_link(before)?
        }
        id => id?,
    };
    classifier.take_link(id)
}

impl Attachment {
    /// Takes the programs off the interfaces, and the qdiscs that were there for them.
    pub async fn detach(self, mut dataplane: Dataplane, interfaces: &Interfaces) {
        let ours = dataplane.maps.instance().ok();
        if let (Some(pins), Some(instance)) = (&dataplane.pins, ours)
            && pins.is_of(&instance.identity)
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

    /// Leaves the programs attached, for the next router to take over. They have to be pinned.
    pub fn leave(self) {
        for link in self.links {
            // A link by tcx is held by its pin; one by clsact would take the filter off when it is dropped.
            if self.mode == AttachMode::Clsact {
                std::mem::forget(link);
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
