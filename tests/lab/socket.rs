//! Socket options that the usual crates leave out.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use nix::libc::{self, c_int};
use socket2::{Domain, SockRef};

/// A TCP or UDP socket option set from raw bytes.
fn set_option(socket: &impl AsFd, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let length = value
        .len()
        .try_into()
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads `length` bytes at `value`, which is that long and
    // outlives the call; the descriptor is borrowed for the whole call.
    let result = unsafe { libc::setsockopt(socket, level, name, value.as_ptr().cast(), length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sends IPv4 options (RFC 791, section 3.1) with each packet of this socket.
pub fn set_ip_options(socket: &impl AsFd, options: &[u8]) -> io::Result<()> {
    set_option(socket, libc::IPPROTO_IP, libc::IP_OPTIONS, options)
}

/// Sends UDP datagrams over IPv4 without a checksum: its field is 0 (RFC 768).
pub fn send_without_checksum(socket: &impl AsFd) -> io::Result<()> {
    let on: c_int = 1;
    set_option(
        socket,
        libc::SOL_SOCKET,
        libc::SO_NO_CHECK,
        &on.to_ne_bytes(),
    )
}

/// How many hops this socket's packets may go.
pub fn set_hop_limit(socket: &impl AsFd, hops: u8) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if socket.domain()? == Domain::IPV6 {
        socket.set_unicast_hops_v6(hops.into())
    } else {
        socket.set_ttl_v4(hops.into())
    }
}
