//! Loaded kernel halves that tests use one after the other. The verifier takes longer than all packets of a test, and
//! several seconds where the machine is an emulated one.

use std::{
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};

use anyhow::{Context as _, Result};
use aya::maps::MapInfo;
use egress_userspace::dataplane::{Dataplane, Options, PROGRAMS};

use crate::blank;

/// Those that nobody uses now.
static IDLE: Mutex<Vec<(Kind, Dataplane)>> = Mutex::new(Vec::new());

/// What sets one kernel half apart from another, as far as tests choose it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    max_flows: [u32; 2],
    kernel_expiry: bool,
}

/// A kernel half with empty maps, for one test at a time.
pub struct Pooled {
    kind: Kind,
    /// There until it is given back.
    dataplane: Option<Dataplane>,
}

impl Pooled {
    /// One that is idle, with its maps emptied, or a new one.
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

/// Makes the maps of a kernel half as they are when it has just been loaded.
fn empty(dataplane: &mut Dataplane) -> Result<()> {
    for program in PROGRAMS {
        let info = dataplane.program(program)?.info()?;
        for id in info
            .map_ids()?
            .context("the kernel tells no map of a program")?
        {
            blank::map(&MapInfo::from_id(id)?)?;
        }
    }
    Ok(())
}

impl Drop for Pooled {
    fn drop(&mut self) {
        // A timer goes on for as long as its map lives.
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
