//! How a running router is told from one that was killed: it holds a socket for each of its interfaces.
//!
//! The sockets have abstract names, which belong to the network namespace, and vanish with the process however it ends.
//! A process ID would mean nothing to a reader in another PID namespace, and something wrong to a restarted container.

use std::os::{
    linux::net::SocketAddrExt as _,
    unix::net::{SocketAddr, UnixDatagram},
};
use std::{fmt, io};

/// The claim of a running router on its interfaces.
pub struct Presence {
    _sockets: Vec<UnixDatagram>,
}

/// Why the interfaces could not be claimed.
#[derive(Debug)]
pub struct Taken {
    /// Index of the interface that another router has.
    pub ifindex: u32,
}

impl fmt::Display for Taken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "another router has interface {}", self.ifindex)
    }
}

impl std::error::Error for Taken {}

fn name(ifindex: u32) -> io::Result<SocketAddr> {
    SocketAddr::from_abstract_name(format!("egress-router/{ifindex}"))
}

impl Presence {
    /// Claims interfaces of this network namespace, by their indexes.
    ///
    /// # Errors
    ///
    /// The inner error says which one another router has.
    pub fn claim(interfaces: impl IntoIterator<Item = u32>) -> io::Result<Result<Self, Taken>> {
        let mut sockets = Vec::new();
        for ifindex in interfaces {
            match UnixDatagram::bind_addr(&name(ifindex)?) {
                Ok(socket) => sockets.push(socket),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                    return Ok(Err(Taken { ifindex }));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Ok(Self { _sockets: sockets }))
    }

    /// Whether a running router has claimed the interface with this index.
    pub fn is_claimed(ifindex: u32) -> bool {
        let connect = || UnixDatagram::unbound()?.connect_addr(&name(ifindex)?);
        connect().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_excludes_others_and_ends_with_its_holder() {
        // Beyond the indexes that a kernel gives out, so that no router of this machine has them.
        let (first, second) = (u32::MAX, u32::MAX - 1);
        let claim = Presence::claim([first, second]).unwrap().unwrap();
        assert!(Presence::is_claimed(first) && Presence::is_claimed(second));
        assert_eq!(
            Presence::claim([second]).unwrap().err().unwrap().ifindex,
            second
        );
        drop(claim);
        assert!(!Presence::is_claimed(first));
        assert!(Presence::claim([first]).unwrap().is_ok());
    }
}
