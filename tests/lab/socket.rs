//! Socket options that the usual crates leave out.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

use nix::libc::{self, c_int};
use socket2::{Domain, SockRef};

/// Sets a socket option from raw bytes.
fn set_option(socket: &impl AsFd, level: c_int, name: c_int, value: &[u8]) -> io::Result<()> {
    let length = value
        .len()
        .try_into()
        .map_err(|_| io::ErrorKind::InvalidInput)?;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads `length` bytes at `value`, which is that long and outlives the call; the descriptor is
    // borrowed for the whole call.
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

/// Sends UDP datagrams over IPv4 with checksum 0, that is, without one (RFC 768).
pub fn send_without_checksum(socket: &impl AsFd) -> io::Result<()> {
    let on: c_int = 1;
    set_option(
        socket,
        libc::SOL_SOCKET,
        libc::SO_NO_CHECK,
        &on.to_ne_bytes(),
    )
}

/// Sets the stream on which this SCTP socket sends by default (`SCTP_DEFAULT_SNDINFO`, RFC 6458, section 8.1.31).
pub fn set_default_stream(socket: &impl AsFd, stream: u16) -> io::Result<()> {
    // `struct sctp_sndinfo`: stream, flags, payload protocol, context, association.
    let mut information = [0; 16];
    information[..2].copy_from_slice(&stream.to_ne_bytes());
    set_option(
        socket,
        libc::IPPROTO_SCTP,
        libc::SCTP_DEFAULT_SNDINFO,
        &information,
    )
}

/// Makes a packet(7) socket bypass the interface's queueing discipline.
pub fn bypass_queueing(socket: &impl AsFd) -> io::Result<()> {
    let on: c_int = 1;
    set_option(
        socket,
        libc::SOL_PACKET,
        libc::PACKET_QDISC_BYPASS,
        &on.to_ne_bytes(),
    )
}

/// Reads an integer option of a TCP or UDP socket.
fn option(socket: &impl AsFd, level: c_int, name: c_int) -> io::Result<c_int> {
    let mut value: c_int = 0;
    let mut length =
        libc::socklen_t::try_from(size_of_val(&value)).map_err(|_| io::ErrorKind::InvalidInput)?;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most `length` bytes to `value`, which is that long; the descriptor is borrowed for
    // the whole call.
    let result = unsafe {
        libc::getsockopt(
            socket,
            level,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    if result == 0 {
        Ok(value)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The option of the socket's own family, given one for each.
fn by_family(
    socket: &impl AsFd,
    v4: (c_int, c_int),
    v6: (c_int, c_int),
) -> io::Result<(c_int, c_int)> {
    let domain = SockRef::from(socket).domain()?;
    Ok(if domain == Domain::IPV6 { v6 } else { v4 })
}

/// Lets every ICMP error about this socket's datagrams end a wait, including non-final ones such as "hop limit
/// exceeded".
pub fn receive_every_error(socket: &impl AsFd) -> io::Result<()> {
    let on: c_int = 1;
    let (level, name) = by_family(
        socket,
        (libc::IPPROTO_IP, libc::IP_RECVERR),
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
    )?;
    set_option(socket, level, name, &on.to_ne_bytes())
}

/// Forbids fragmentation by this host or any other. Packets above the known path MTU fail with `EMSGSIZE`.
pub fn forbid_fragments(socket: &impl AsFd) -> io::Result<()> {
    // `IPV6_PMTUDISC_DO` has the same value.
    let discovery: c_int = libc::IP_PMTUDISC_DO;
    let (level, name) = by_family(
        socket,
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER),
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER),
    )?;
    set_option(socket, level, name, &discovery.to_ne_bytes())
}

/// The path MTU to the peer of this connected socket, as far as this host knows it.
pub fn path_mtu(socket: &impl AsFd) -> io::Result<u32> {
    let (level, name) = by_family(
        socket,
        (libc::IPPROTO_IP, libc::IP_MTU),
        (libc::IPPROTO_IPV6, libc::IPV6_MTU),
    )?;
    option(socket, level, name)?
        .try_into()
        .map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Sets the time to live, or hop limit, of this socket's packets.
pub fn set_hop_limit(socket: &impl AsFd, hops: u8) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if socket.domain()? == Domain::IPV6 {
        socket.set_unicast_hops_v6(hops.into())
    } else {
        socket.set_ttl_v4(hops.into())
    }
}
