//! What the process may do: no more than it needs, as early as it can do without.

use caps::{CapSet, Capability, CapsHashSet};
use thiserror::Error;

/// Why privileges could not be given up.
#[derive(Debug, Error)]
pub enum PrivilegesError {
    /// `no_new_privs` was refused.
    #[error("could not renounce the privileges that other programs would give: {0}")]
    New(#[from] nix::Error),
    /// Capabilities could not be read or set.
    #[error("could not give up capabilities: {0}")]
    Capabilities(#[from] caps::errors::CapsError),
}

/// Renounces what a program that is started from here could gain (`no_new_privs`).
///
/// # Errors
///
/// If the kernel refuses.
pub fn renounce_new_ones() -> Result<(), PrivilegesError> {
    Ok(nix::sys::prctl::set_no_new_privs()?)
}

/// Gives up every capability but those that a running router needs, for this thread and those that it starts.
///
/// `CAP_BPF` is for the maps, on kernels that ask for it with each access. `CAP_NET_ADMIN` is kept where something of the network
/// is still to be changed: a filter by clsact to be taken off (a link by tcx is closed), or a neighbour to be asked for.
///
/// # Errors
///
/// If the kernel refuses.
pub fn drop_all_but_needed(changes_network: bool) -> Result<(), PrivilegesError> {
    let mut needed = CapsHashSet::from([Capability::CAP_BPF]);
    if changes_network {
        needed.insert(Capability::CAP_NET_ADMIN);
    }
    let permitted = caps::read(None, CapSet::Permitted)?;
    let kept: CapsHashSet = permitted.intersection(&needed).copied().collect();
    // Takes CAP_SETPCAP, which only root has; without it the permitted set below is what counts.
    for capability in caps::all() {
        if !kept.contains(&capability) {
            let _ = caps::drop(None, CapSet::Bounding, capability);
        }
    }
    // Kernels that know none have none to clear.
    let _ = caps::clear(None, CapSet::Ambient);
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())?;
    caps::set(None, CapSet::Effective, &kept)?;
    Ok(caps::set(None, CapSet::Permitted, &kept)?)
}
