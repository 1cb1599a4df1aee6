//! Captures frames on an interface (packet(7)).

use std::cell::RefCell;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, LinkAddr, SockFlag, SockType, SockaddrLike as _, bind, recvfrom, setsockopt,
    socket, sockopt,
};

use crate::frame::{Frame, Packet};
use crate::namespace::Namespace;

/// The longest frame: an IP packet at the limit of segmentation offload.
const LONGEST_FRAME: usize = 14 + 65_535;
const RECEIVE_BUFFER: usize = 16 << 20;

/// A capture of all frames on one interface, in both directions, from its creation on.
#[derive(Debug)]
pub struct Capture {
    place: String,
    socket: OwnedFd,
    frames: RefCell<Vec<Frame>>,
}

impl Capture {
    /// Starts a capture on `interface` of `namespace`.
    pub fn on(namespace: &Namespace, interface: &str) -> Result<Self> {
        let place = format!("{interface} of the {}", namespace.role());
        let index = namespace.interface(interface)?.index;
        let socket = namespace
            .run(|| open(index))
            .with_context(|| format!("capturing on {place}"))?;
        Ok(Self {
            place,
            socket,
            frames: RefCell::default(),
        })
    }

    /// All frames so far.
    pub fn frames(&self) -> Result<Vec<Frame>> {
        while self.receive(Duration::ZERO)? {}
        Ok(self.frames.borrow().clone())
    }

    /// Returns the first frame that `wanted` accepts, of those captured already or within `timeout`. `what` describes
    /// the frame in the error message.
    pub fn wait_for(
        &self,
        what: &str,
        timeout: Duration,
        wanted: impl Fn(&Packet) -> bool,
    ) -> Result<Frame> {
        let deadline = Instant::now() + timeout;
        let mut examined = 0;
        loop {
            if let Some(frame) = self.frames.borrow()[examined..]
                .iter()
                .find(|frame| frame.packet().is_some_and(|packet| wanted(&packet)))
            {
                return Ok(frame.clone());
            }
            examined = self.frames.borrow().len();
            let left = deadline.saturating_duration_since(Instant::now());
            if !self.receive(left)? && left.is_zero() {
                bail!("no frame with {what} on {} within {timeout:?}", self.place);
            }
        }
    }

    /// Receives one frame within `timeout`. Returns whether there was one.
    fn receive(&self, timeout: Duration) -> Result<bool> {
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        let mut readable = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut readable, timeout) {
            Ok(0) | Err(Errno::EINTR) => return Ok(false),
            result => result.with_context(|| format!("waiting for a frame on {}", self.place))?,
        };
        let mut bytes = vec![0; LONGEST_FRAME];
        let (length, address) = recvfrom::<LinkAddr>(self.socket.as_raw_fd(), &mut bytes)
            .with_context(|| format!("capturing on {}", self.place))?;
        bytes.truncate(length);
        bytes.shrink_to_fit();
        let outgoing = address.is_some_and(|address| address.pkttype() == libc::PACKET_OUTGOING);
        self.frames.borrow_mut().push(Frame { outgoing, bytes });
        Ok(true)
    }
}

/// A socket that receives the frames arriving on this interface of the calling thread's namespace, and can send frames
/// on it.
///
/// # Errors
/// Without `CAP_NET_RAW` and `CAP_NET_ADMIN` in the namespace.
pub fn received_on(interface: u32) -> Result<OwnedFd> {
    // linux/if_packet.h
    const PACKET_IGNORE_OUTGOING: libc::c_int = 23;
    let socket = open(interface)?;
    let yes: libc::c_int = 1;
    // SAFETY: the pointer is to an int of the length given, which is read before the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_IGNORE_OUTGOING,
            (&raw const yes).cast(),
            size_of_val(&yes).try_into()?,
        )
    };
    Errno::result(result).context("setsockopt(PACKET_IGNORE_OUTGOING)")?;
    Ok(socket)
}

fn open(interface: u32) -> Result<OwnedFd> {
    // Protocol 0 receives nothing until bind(2) sets the interface and the protocol together. No frame of another
    // interface gets in between.
    let socket = socket(
        AddressFamily::Packet,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    let every_protocol = u16::try_from(libc::ETH_P_ALL)?;
    bind(
        socket.as_raw_fd(),
        &on_interface(interface, every_protocol)?,
    )?;
    Ok(socket)
}

/// The address of a packet(7) socket on one interface. With protocol 0 the socket receives nothing.
pub(crate) fn on_interface(interface: u32, protocol: u16) -> Result<LinkAddr> {
    let address = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET.try_into()?,
        sll_protocol: protocol.to_be(),
        sll_ifindex: interface.try_into()?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let length = size_of_val(&address).try_into()?;
    // SAFETY: the pointer is to a whole `sockaddr_ll` of that length, which is copied.
    unsafe { LinkAddr::from_raw((&raw const address).cast(), Some(length)) }
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput).into())
}
