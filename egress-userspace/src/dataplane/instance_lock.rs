//! How a running router is told from one that was killed: it holds a socket for each of its interfaces.
//!
//! The sockets have abstract names, which belong to the network namespace, and vanish with the process however it ends.
//! A process ID would mean nothing to a reader in another PID namespace, and something wrong to a restarted container.

use std::io;
use std::os::{
    linux::net::SocketAddrExt as _,
    unix::net::{SocketAddr, UnixDatagram},
};

use thiserror::Error;

/// The lock that a running router has on its interfaces.
pub struct InstanceLock {
    _sockets: Vec<UnixDatagram>,
}

/// Why the interfaces could not be locked.
#[derive(Debug, Error)]
pub enum LockError {
    /// Another router has an interface.
    #[error("another router has interface {ifindex}")]
    Held {
        /// Its index.
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
    /// Locks interfaces of this network namespace, by their indexes.
    ///
    /// # Errors
    ///
    /// [`LockError::Held`] if another router has one of them.
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
        // Beyond the indexes that a kernel gives out, so that no router of this machine has them.
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
