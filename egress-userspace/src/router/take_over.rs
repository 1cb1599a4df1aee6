//! Where the dataplane is pinned, and what an earlier router has pinned there.

use std::path::{Path, PathBuf};

use egress_api::EgressRouter;
use egress_common::InstanceInfo;

use super::{
    config::{Pinning, RouterConfig},
    error::StartError,
};
use crate::dataplane::{Former, InterfacePair, PinnedState, Pins, PinsError};

/// The directory to pin the dataplane in, if any.
pub fn pins(config: &RouterConfig, resource: &EgressRouter) -> Result<Option<Pins>, StartError> {
    let by_name = || Pins::at(&default_pin_path(resource));
    match &config.pinning {
        Pinning::Off => Ok(None),
        Pinning::At(directory) => Ok(Some(Pins::at(directory)?)),
        Pinning::Required => by_name().map(Some).map_err(StartError::NotPinnable),
        Pinning::IfPossible => match by_name() {
            Ok(pins) => Ok(Some(pins)),
            Err(error @ (PinsError::NotBpf(_) | PinsError::Io { .. })) => {
                log::warn!("the dataplane will end with this process: {error}");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        },
    }
}

/// The directory is named for the resource. The BPF file system reserves names with a dot.
fn default_pin_path(resource: &EgressRouter) -> PathBuf {
    let name = resource.metadata.name.as_str().replace('.', "_");
    Path::new(Pins::DEFAULT).join(name)
}

/// What becomes of the dataplane that an earlier router has left.
pub enum Earlier {
    /// There is none.
    Nothing,
    /// Its programs stay attached until ours replace them; its maps are not used.
    Replaced(Former),
    /// Its maps are used, and this is what its process kept there.
    TakenOver(Box<InstanceInfo>),
}

/// Looks at what an earlier router has left, and clears away what is of other interfaces.
pub fn take_over(pins: &Pins, pair: InterfacePair) -> Result<Earlier, PinsError> {
    let directory = pins.directory().display();
    match pins.state(pair)? {
        PinnedState::Empty => Ok(Earlier::Nothing),
        PinnedState::Usable(instance) => Ok(Earlier::TakenOver(instance)),
        PinnedState::Unusable { reason, flows } => {
            let flows = match flows {
                Some(1) => "its 1 flow ends".to_owned(),
                Some(flows) => format!("its {flows} flows end"),
                None => "its flows end".to_owned(),
            };
            log::warn!(
                "the dataplane in {directory} is replaced, {flows}, and all counters begin at 0: {reason}"
            );
            Ok(Earlier::Replaced(pins.former(pair)))
        }
        PinnedState::Foreign(reason) => {
            log::warn!("what is in {directory} is not for this router and is removed: {reason}");
            pins.remove()?;
            Pins::at(pins.directory())?;
            Ok(Earlier::Nothing)
        }
    }
}

/// Removes what this router has pinned, unless it comes up. For one that began with nothing pinned.
pub struct Unfinished<'p> {
    pins: Option<&'p Pins>,
    pair: InterfacePair,
}

impl<'p> Unfinished<'p> {
    pub const fn new(pins: Option<&'p Pins>, pair: InterfacePair) -> Self {
        Self { pins, pair }
    }

    /// The router is up.
    pub fn finish(mut self) {
        self.pins = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let Some(pins) = self.pins else {
            return;
        };
        // A router of another pod may have taken the place meanwhile.
        if matches!(pins.state(self.pair), Ok(PinnedState::Foreign(_))) {
            return;
        }
        if let Err(error) = pins.remove() {
            log::warn!("{error}");
        }
    }
}
