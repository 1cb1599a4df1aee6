//! Gives up privileges as early as the process can do without them.

use caps::{CapSet, Capability, CapsHashSet};
use thiserror::Error;

/// Why privileges could not be given up.
#[derive(Debug, Error)]
pub enum PrivilegesError {
    /// `no_new_privs` was refused.
    #[error("could not set no_new_privs: {0}")]
    New(#[from] nix::Error),
    /// Capabilities could not be read or set.
    #[error("could not give up capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
}

/// Sets `no_new_privs`: programs that this process starts gain no privileges from set-user-ID bits or file
/// capabilities.
///
/// # Errors
///
/// If the kernel refuses.
pub fn set_no_new_privs() -> Result<(), PrivilegesError> {
    Ok(nix::sys::prctl::set_no_new_privs()?)
}

/// Drops every capability that a running router does not need, for this thread and the threads that it starts.
///
/// `CAP_BPF` stays for access to maps, which some kernels check on each call. `CAP_NET_ADMIN` stays if
/// `changes_network`: to detach a clsact filter (a tcx link is only closed), or to resolve a neighbour.
///
/// # Errors
///
/// If the kernel refuses.
pub fn drop_unneeded(changes_network: bool) -> Result<(), PrivilegesError> {
    let mut needed = CapsHashSet::from([Capability::CAP_BPF]);
    if changes_network {
        needed.insert(Capability::CAP_NET_ADMIN);
    }
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = permitted.intersection(&needed).copied().collect();
    // This requires CAP_SETPCAP, which only root has. Without it, the permitted set below is the limit.
    for capability in caps::all() {
        if !kept.contains(&capability) {
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
    // Fails on kernels without ambient capabilities, which have none to clear.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &kept)?;
    Ok(caps::set(None, CapSet::Permitted, &kept)?)
}
