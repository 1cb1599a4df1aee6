//! The privileges of this process.

use anyhow::{Result, ensure};

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Fails unless the user is root. `who` is the subject of the message.
pub fn ensure_root(who: &str, subcommand: &str) -> Result<()> {
    ensure!(
        is_root(),
        "{who} needs root, to make network namespaces and load eBPF programs: \
         run `sudo -E env \"PATH=$PATH\" cargo xtask {subcommand}`"
    );
    Ok(())
}
