//! Waiting for what should happen.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::PATIENCE;

const POLL: Duration = Duration::from_millis(10);

/// Calls `ask` until it returns `Some`.
///
/// # Errors
/// Those of `ask`; and when that takes longer than [`PATIENCE`]. The message starts with `what`.
pub fn eventually<T>(what: &str, ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    eventually_within(PATIENCE, what, ask)
}

/// Like [`eventually`], with another limit.
///
/// # Errors
/// Those of `ask`; and when that takes longer than `patience`.
pub fn eventually_within<T>(
    patience: Duration,
    what: &str,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if Instant::now() > deadline {
            bail!("{what}: not within {patience:?}");
        }
        thread::sleep(POLL);
    }
}
