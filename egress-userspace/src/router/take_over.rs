//! Where the dataplane is pinned, and what happens to a dataplane that is already pinned there.

use std::path::{Path, PathBuf};

use egress_api::EgressRouter;
use egress_common::InstanceInfo;

use super::{
    config::{Pinning, RouterConfig},
    error::StartError,
};
use crate::dataplane::{InterfacePair, PinnedState, Pins, PinsError, ReplacedDataplane};

/// Where to pin the dataplane; `None` if it is not pinned.
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

/// The directory for a resource, by its name. The BPF file system reserves names with a dot.
fn default_pin_path(resource: &EgressRouter) -> PathBuf {
    let name = resource.metadata.name.as_str().replace('.', "_");
    Path::new(Pins::DEFAULT).join(name)
}

/// What this router does with the dataplane that an earlier one left.
pub enum EarlierDataplane {
    /// There is none.
    None,
    /// Its programs stay attached until ours replace them. Its maps are not used.
    Replaced(ReplacedDataplane),
    /// Its maps are used. This is the content of its map `INSTANCE`.
    TakenOver(Box<InstanceInfo>),
}

/// Decides what to do with the pinned state, and removes that of other interfaces.
pub fn take_over(pins: &Pins, pair: InterfacePair) -> Result<EarlierDataplane, PinsError> {
    let directory = pins.directory().display();
    match pins.state(pair)? {
        PinnedState::Empty => Ok(EarlierDataplane::None),
        PinnedState::Usable(instance) => Ok(EarlierDataplane::TakenOver(instance)),
        PinnedState::Unusable { reason, flows } => {
            let flows = match flows {
                Some(1) => "its 1 flow ends".to_owned(),
                Some(flows) => format!("its {flows} flows end"),
                None => "its flows end".to_owned(),
            };
            log::warn!(
                "the dataplane in {directory} is replaced, {flows}, and all counters start at 0: {reason}"
            );
            Ok(EarlierDataplane::Replaced(pins.replaced_dataplane(pair)))
        }
        PinnedState::Foreign(reason) => {
            log::warn!(
                "the dataplane in {directory} is not for this router's interfaces and is removed: {reason}"
            );
            pins.remove()?;
            Pins::at(pins.directory())?;
            Ok(EarlierDataplane::None)
        }
    }
}

/// Undoes the pins of a start that fails. For a router that began with nothing pinned.
pub struct Unfinished<'p> {
    pins: Option<&'p Pins>,
    pair: InterfacePair,
}

impl<'p> Unfinished<'p> {
    pub const fn new(pins: Option<&'p Pins>, pair: InterfacePair) -> Self {
        Self { pins, pair }
    }

    /// Keeps the pins: the router has started.
    pub fn finish(mut self) {
        self.pins = None;
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        let Some(pins) = self.pins else {
            return;
        };
        // A router of another pod may have pinned its dataplane here meanwhile.
        if matches!(pins.state(self.pair), Ok(PinnedState::Foreign(_))) {
            return;
        }
        if let Err(error) = pins.remove() {
            log::warn!("{error}");
        }
    }
}
