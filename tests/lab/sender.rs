//! Sends batches of frames on an interface (packet(7), sendmmsg(2)).

use std::fmt;
use std::io::IoSlice;
use std::os::fd::{AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::sys::socket::{
    AddressFamily, LinkAddr, MsgFlags, MultiHeaders, SockFlag, SockType, bind, sendmmsg, socket,
};

use crate::capture::on_interface;
use crate::namespace::Namespace;
use crate::socket::bypass_queueing;

/// Sends batches of `BATCH` frames on one interface, bypassing its queueing discipline.
pub struct FrameSender<const BATCH: usize> {
    place: String,
    socket: OwnedFd,
    headers: MultiHeaders<LinkAddr>,
}

impl<const BATCH: usize> FrameSender<BATCH> {
    /// Opens a sender on `interface` of `namespace`.
    pub fn on(namespace: &Namespace, interface: &str) -> Result<Self> {
        let place = format!("{interface} of the {}", namespace.role());
        let index = namespace.interface(interface)?.index;
        let socket = namespace
            .run(|| open(index))
            .with_context(|| format!("opening a sender on {place}"))?;
        Ok(Self {
            place,
            socket,
            headers: MultiHeaders::preallocate(BATCH, None),
        })
    }

    /// Sends the frames, which start with their destination MAC address. Returns how many the kernel took.
    pub fn send<const LEN: usize>(&mut self, frames: &[[u8; LEN]; BATCH]) -> Result<usize> {
        let slices = frames.each_ref().map(|frame| [IoSlice::new(frame)]);
        let sent = sendmmsg(
            self.socket.as_raw_fd(),
            &mut self.headers,
            slices.iter(),
            [None; BATCH],
            [],
            MsgFlags::empty(),
        )
        .with_context(|| format!("sending frames on {}", self.place))?;
        Ok(sent.count())
    }
}

impl<const BATCH: usize> fmt::Debug for FrameSender<BATCH> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FrameSender")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

fn open(interface: u32) -> Result<OwnedFd> {
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    bypass_queueing(&socket)?;
    bind(socket.as_raw_fd(), &on_interface(interface, 0)?)?;
    Ok(socket)
}
