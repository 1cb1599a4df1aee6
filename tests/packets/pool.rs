//! Loaded kernel halves that tests reuse. The verifier takes longer than all packets of a test, and several seconds on
//! an emulated machine.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use aya::maps::MapInfo;
use egress_userspace::dataplane::{Dataplane, Options, PROGRAMS};

use crate::blank;

/// Kernel halves that no test is using.
static IDLE: Mutex<Vec<(Kind, Dataplane)>> = Mutex::new(Vec::new());

/// The settings that are fixed when a kernel half is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    max_flows: [u32; 2],
    kernel_expiry: bool,
}

/// A kernel half with empty maps, used by one test at a time.
pub struct Pooled {
    kind: Kind,
    /// `Some` until drop.
    dataplane: Option<Dataplane>,
}

impl Pooled {
    /// Takes an idle kernel half and empties its maps, or loads a new one.
    pub fn take(options: &Options) -> Result<Self> {
        let kind = Kind {
            max_flows: [options.max_flows_v4, options.max_flows_v6],
            kernel_expiry: options.features.kernel_expiry,
        };
        let idle = {
            let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            let found = idle.iter().position(|(other, _)| *other == kind);
            found.map(|index| idle.swap_remove(index).1)
        };
        let dataplane = match idle {
            Some(mut dataplane) => {
                empty(&mut dataplane).context("emptying the maps of an earlier test")?;
                dataplane
            }
            None => Dataplane::load(options)?,
        };
        Ok(Self {
            kind,
            dataplane: Some(dataplane),
        })
    }
}

/// Returns the maps of a kernel half to their state after loading.
fn empty(dataplane: &mut Dataplane) -> Result<()> {
    for program in PROGRAMS {
        let info = dataplane.program(program)?.info()?;
        for id in info
            .map_ids()?
            .context("this kernel does not report a program's maps")?
        {
            blank::map(&MapInfo::from_id(id)?)?;
        }
    }
    Ok(())
}

impl Drop for Pooled {
    fn drop(&mut self) {
        // A timer runs as long as its map exists.
        if let Some(dataplane) = self.dataplane.take().filter(|_| !self.kind.kernel_expiry) {
            let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push((self.kind, dataplane));
        }
    }
}

const THERE: &str = "it is there until it is dropped";

impl Deref for Pooled {
    type Target = Dataplane;

    fn deref(&self) -> &Dataplane {
        self.dataplane.as_ref().expect(THERE)
    }
}

impl DerefMut for Pooled {
    fn deref_mut(&mut self) -> &mut Dataplane {
        self.dataplane.as_mut().expect(THERE)
    }
}
