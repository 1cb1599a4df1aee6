//! The instance lock: a running router holds a socket for each of its interfaces, which a killed one does not.
//!
//! The sockets have abstract names. These belong to the network namespace, and the kernel frees them however the
//! process ends. A process ID would mean nothing in another PID namespace, and could name another process after a
//! restart of the container.

use std::io;
use std::os::{
    linux::net::SocketAddrExt as _,
    unix::net::{SocketAddr, UnixDatagram},
};

use thiserror::Error;

/// The lock of a running router on its interfaces.
pub struct InstanceLock {
    _sockets: Vec<UnixDatagram>,
}

/// Why the interfaces could not be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another router has locked an interface.
    #[error("another router has locked interface {ifindex}")]
    Held {
        /// The index of the interface.
        ifindex: u32,
    },
    /// The kernel refused a socket.
    #[error(transparent)]
    Io(#[from] io::Error),
}

fn name(ifindex: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("egress-router/{ifindex}"))
}

impl InstanceLock {
    /// Locks interfaces of this network namespace by their indexes.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] if another router has locked one of them.
    pub fn acquire(interfaces: impl IntoIterator<Item = u32>) -> Result<Self, LockError> {
        let mut sockets = Vec::new();
        for ifindex in interfaces {
            match UnixDatagram::bind_addr(&name(ifindex)?) {
                Ok(socket) => sockets.push(socket),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    return Err(LockError::Held { ifindex });
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Self { _sockets: sockets })
    }

    /// Whether a running router holds the lock of the interface with this index.
    pub fn is_held(ifindex: u32) -> bool {
        let connect = || UnixDatagram::unbound()?.connect_addr(&name(ifindex)?);
        connect().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_excludes_others_and_ends_with_its_holder() {
        // Larger than any index that the kernel assigns, so that no router on this machine uses them.
        let (first, second) = (u32::MAX, u32::MAX - 1);
        let lock = InstanceLock::acquire([first, second]).unwrap();
        assert!(InstanceLock::is_held(first) && InstanceLock::is_held(second));
        let held = InstanceLock::acquire([second]).err().unwrap();
        assert!(matches!(held, LockError::Held { ifindex } if ifindex == second));
        drop(lock);
        assert!(!InstanceLock::is_held(first));
        assert!(InstanceLock::acquire([first]).is_ok());
    }
}
