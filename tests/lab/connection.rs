//! TCP connections through the router.

use std::io;
use std::net::{SocketAddr, TcpStream};

use anyhow::{Result, ensure};

use crate::addresses::{Rule, is_reserved};
use crate::tcp;
use crate::topology::Lab;
use crate::wait::eventually;

/// A connection through the router.
#[derive(Debug)]
pub struct Connection {
    /// The client's end.
    pub client: TcpStream,
    /// The server's end.
    pub server: TcpStream,
    /// The client's address, as the server sees it.
    pub seen_by_server: SocketAddr,
}

impl Connection {
    /// Connects the first client through a rule.
    pub fn open(lab: &Lab, rule: Rule) -> Result<Self> {
        Self::open_to(lab, rule.service(), rule.server())
    }

    /// Connects the first client to `service`, which should lead to `server`.
    ///
    /// # Errors
    /// When the server does not see the reserved address.
    pub fn open_to(lab: &Lab, service: SocketAddr, server: SocketAddr) -> Result<Self> {
        let listener = once_free(|| tcp::listen(lab.servers(), server))?;
        let client = tcp::connect(lab.client(), service)?;
        let (server, seen_by_server) = tcp::accept(&listener)?;
        ensure!(
            is_reserved(seen_by_server.ip()),
            "the server saw {seen_by_server}, not the reserved address"
        );
        Ok(Self {
            client,
            server,
            seen_by_server,
        })
    }

    /// Checks that data passes in both directions.
    pub fn exchange(&self) -> Result<()> {
        tcp::exchange(&self.client, &self.server)
    }
}

/// Binds an address that another socket may just have released.
///
/// A closed socket keeps its address while a child process that another test has just forked has not reached its
/// `exec`.
pub fn once_free<T>(mut bind: impl FnMut() -> Result<T>) -> Result<T> {
    eventually("the address is free", || match bind() {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if tcp::error_kind(&error) == Some(io::ErrorKind::AddrInUse) => Ok(None),
        Err(error) => Err(error),
    })
}
