//! `demo`: real traffic through the router, for a person to see.

use anyhow::{Result, bail};

use crate::build::{self, Profile};
use crate::setup;
use crate::workspace::Workspace;

/// Builds everything and shows it at work.
///
/// # Errors
/// Setup or a build fails, or the demonstration does.
pub fn run(workspace: &Workspace) -> Result<()> {
    setup::ensure_complete(workspace)?;
    build::all(workspace, Profile::Debug)?;
    bail!("the demonstration is not written yet")
}
