//! Access to the packet. No other code turns an offset into a pointer.

use core::{arch::asm, mem::offset_of};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::bpf_csum_update,
    programs::TcContext,
};
use bytemuck::{AnyBitPattern, NoUninit};
use egress_common::{
    Bytes, Outcome,
    extension::{self, Frame, Place},
    protocol,
};
use network_types::eth::EtherType;

/// Ethernet types in network byte order, as [`Packet::ether_type`] returns them.
pub const IPV4: u16 = EtherType::Ipv4 as u16;
pub const IPV6: u16 = EtherType::Ipv6 as u16;

/// `skb->pkt_type` of a frame to this interface's own MAC address (`PACKET_HOST` in `linux/if_packet.h`).
const PACKET_HOST: u32 = 0;

pub struct Packet {
    ctx: TcContext,
}

impl Packet {
    #[inline(always)]
    pub const fn new(ctx: TcContext) -> Self {
        Self { ctx }
    }

    #[inline(always)]
    pub const fn skb(&self) -> *mut __sk_buff {
        self.ctx.skb.skb
    }

    /// The start and end of the packet's linear part.
    ///
    /// The context has both as 32-bit fields, which become pointers when they are read. In Rust the reads would give
    /// 32-bit numbers. If the compiler moves the widening to 64 bits away from the read, the verifier sees truncated
    /// pointers. In assembly the reads have 64-bit results.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        let (start, end): (usize, usize);
        // SAFETY: the context is valid while the program runs. Helpers that change the packet write memory, so the
        // compiler repeats the read after them (`readonly`).
        unsafe {
            asm!(
                "{start} = *(u32 *)({skb} + {data})",
                "{end} = *(u32 *)({skb} + {data_end})",
                start = out(reg) start,
                end = lateout(reg) end,
                skb = in(reg) self.skb(),
                data = const offset_of!(__sk_buff, data),
                data_end = const offset_of!(__sk_buff, data_end),
                options(pure, readonly, nostack),
            );
        }
        (start, end)
    }

    /// The Ethernet type in network byte order.
    #[inline(always)]
    pub fn ether_type(&self) -> u16 {
        // SAFETY: the context of a TC program is valid while it runs; the verifier checks the field.
        let protocol = unsafe { (*self.skb()).protocol };
        // The kernel stores the 16 bits in a 32-bit field.
        protocol as u16
    }

    /// Returns `true` if the frame contains an IPv6 packet.
    #[inline(always)]
    pub fn is_v6(&self) -> bool {
        self.ether_type() == IPV6
    }

    /// Returns `true` if the frame was sent to the interface's own MAC address, without a VLAN tag.
    ///
    /// A promiscuous interface receives other frames, which the IP layer drops. A packet in a broadcast frame must not
    /// be forwarded either (RFC 1812, section 5.3.4).
    #[inline(always)]
    pub fn is_for_the_interface(&self) -> bool {
        // SAFETY: as in `ether_type`.
        unsafe { (*self.skb()).vlan_present == 0 && (*self.skb()).pkt_type == PACKET_HOST }
    }

    /// The number of packets on the wire, more than one for a segmentation-offload packet.
    #[inline(always)]
    pub fn segments(&self) -> u64 {
        // SAFETY: as in `ether_type`.
        let segments = unsafe { (*self.skb()).gso_segs };
        if segments == 0 {
            1
        } else {
            u64::from(segments)
        }
    }

    /// The payload length of each packet on the wire; 0 if this is not a segmentation-offload packet.
    #[inline(always)]
    pub fn segment_len(&self) -> usize {
        // SAFETY: as in `ether_type`.
        unsafe { (*self.skb()).gso_size as usize }
    }

    /// Linearizes the first `len` bytes, or all of a shorter packet.
    ///
    /// This invalidates pointers into the packet.
    #[inline(always)]
    pub fn pull(&self, len: u32) {
        let available = self.ctx.len();
        // Fails if memory is short. The frame then stays as it is, and reads past its linear part find it truncated.
        let _ = self
            .ctx
            .pull_data(if available < len { available } else { len });
    }

    /// A pointer to the `T` at `offset`, if it is in the packet's linear part.
    ///
    /// It is valid until a helper changes the packet. Its alignment is the kernel's: the IP header is aligned to a
    /// word, unless the machine reads unaligned words just as fast (`NET_IP_ALIGN`).
    #[inline(always)]
    fn at<T>(&self, offset: usize) -> Option<*mut T> {
        let (start, end) = self.bounds();
        let place = start + offset;
        if place + size_of::<T>() > end {
            None
        } else {
            Some(place as *mut T)
        }
    }

    /// Writes `value` at `offset`.
    #[inline(always)]
    pub fn store<T: NoUninit>(&self, offset: usize, value: T) -> Result<(), Outcome> {
        let place = self.at::<T>(offset).ok_or(Outcome::RewriteFailed)?;
        // SAFETY: `at` checked the bounds. The verifier checks them again and makes the packet writable.
        unsafe { place.write(value) };
        Ok(())
    }

    /// Adds `delta` to the Internet checksum at `offset`.
    ///
    /// This invalidates pointers into the packet.
    #[inline(always)]
    pub fn update_checksum(
        &self,
        protocol: u8,
        offset: usize,
        delta: u16,
        part: ChecksumPart,
    ) -> Result<(), Outcome> {
        let mut flags = match part {
            ChecksumPart::PseudoHeader => u64::from(BPF_F_PSEUDO_HDR),
            ChecksumPart::Payload => 0,
        };
        if protocol == protocol::UDP {
            // A UDP checksum of 0 means none (RFC 768), and stays.
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        self.ctx
            .l4_csum_replace(offset, 0, u64::from(delta), flags)
            .map_err(|_| Outcome::RewriteFailed)
    }

    /// Adds `delta` to the network device's sum of the whole packet (`CHECKSUM_COMPLETE`), if there is one.
    #[inline(always)]
    pub fn update_device_checksum(&self, delta: u16) {
        // SAFETY: the context is valid, see `ether_type`. The helper fails if there is no such sum, which is not an
        // error here.
        unsafe { bpf_csum_update(self.skb(), u32::from(delta)) };
    }
}

/// Where the changed words are.
#[derive(Clone, Copy)]
pub enum ChecksumPart {
    /// Only in the pseudo header. If the device completes the checksum (`CHECKSUM_PARTIAL`), only such words may change
    /// it.
    PseudoHeader,
    /// In the packet's own bytes, which such a device sums itself.
    Payload,
}

impl Bytes for Packet {
    #[inline(always)]
    fn load<T: AnyBitPattern>(&self, offset: usize) -> Option<T> {
        // SAFETY: `at` checked the bounds, and every bit pattern is a valid `T`.
        self.at::<T>(offset).map(|place| unsafe { place.read() })
    }

    #[inline(always)]
    fn load_scattered(&self, offset: usize) -> Option<[u8; 4]> {
        load_word(self, offset as u32).ok().map(u32::to_ne_bytes)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.len() as usize
    }
}

impl Frame for Packet {
    #[inline(always)]
    fn skip_extensions(&self, place: Place) -> Result<Place, Outcome> {
        skip_extensions(self, place)
    }
}

global_fn! {
    /// The word at `offset`, in any of the packet's buffers.
    fn load_word(packet: &Packet, offset: u32) -> Result<u32, Outcome> = load_from_any_buffer;
    load_packet_word
}

#[inline(always)]
fn load_from_any_buffer(packet: &Packet, offset: u32) -> Result<u32, Outcome> {
    packet
        .ctx
        .load(offset as usize)
        .map_err(|_| Outcome::Truncated)
}

global_fn! {
    /// [`extension::walk`].
    fn skip_extensions(packet: &Packet, from: Place) -> Result<Place, Outcome> = walk_extensions;
    skip_ipv6_extensions
}

#[inline(always)]
fn walk_extensions(packet: &Packet, from: Place) -> Result<Place, Outcome> {
    extension::walk(packet, from)
}
