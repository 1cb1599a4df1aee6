//! Access to the packet: the only place that turns an offset into a pointer.

use core::{arch::asm, mem::offset_of};

use aya_ebpf::{
    bindings::{__sk_buff, BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR},
    helpers::bpf_csum_update,
    programs::TcContext,
};
use bytemuck::{AnyBitPattern, NoUninit};
use egress_common::{
    Bytes, ETHERNET_HEADER_LEN, Family, IcmpHeader, NetworkHeader, Outcome, Part, Ports,
    TransportHeader, extension::Place, protocol,
};

use network_types::eth::EtherType;

use crate::rare;

/// The longest headers that are met: Ethernet, IPv4 with all its options or IPv6 with 60 bytes of extensions, TCP
/// without options.
const HEADERS_LEN: u32 = 14 + 100 + 20;

/// `skb->pkt_type` of a frame that was sent to this interface's own MAC (`PACKET_HOST` in `linux/if_packet.h`).
const PACKET_HOST: u32 = 0;

pub struct Packet {
    ctx: TcContext,
}

/// What the packet's headers say.
pub struct Headers<F: Family> {
    pub network: NetworkHeader<F::Address>,
    /// Or why there is none that can be translated.
    pub transport: Result<TransportHeader, Outcome>,
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

    /// Where the contiguous part of the packet begins and where it ends.
    ///
    /// The context has both as 32-bit fields, which the kernel makes pointers of when they are read. Read in Rust they are
    /// numbers to be widened, and wherever the compiler moves the widening away from the read, the verifier sees pointers
    /// cut off. In assembly the reads have 64-bit results.
    #[inline(always)]
    fn bounds(&self) -> (usize, usize) {
        let (start, end): (usize, usize);
        // SAFETY: the context is valid while the program runs. Helpers that change the packet write memory, so the
        // compiler reads again behind them (`readonly`).
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
        // The kernel gives its 16 bits in 32.
        protocol as u16
    }

    /// Whether the frame has an IPv6 packet.
    #[inline(always)]
    pub fn is_v6(&self) -> bool {
        self.ether_type() == EtherType::Ipv6 as u16
    }

    /// Whether the frame is one for the interface itself: sent to its own MAC, and without a VLAN tag.
    ///
    /// A promiscuous interface sees others, which IP drops; and IP over a broadcast MAC is not to be forwarded
    /// (RFC 1812, section 5.3.4).
    #[inline(always)]
    pub fn is_for_the_interface(&self) -> bool {
        // SAFETY: as in `ether_type`.
        unsafe { (*self.skb()).vlan_present == 0 && (*self.skb()).pkt_type == PACKET_HOST }
    }

    /// How many packets this is on the wire: more than one where it is to be segmented.
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

    /// Length of the longest packet that this is on the wire, from the IP header on.
    #[inline(always)]
    pub fn wire_len<A>(&self, network: &NetworkHeader<A>) -> usize {
        // SAFETY: as in `ether_type`.
        let segment = unsafe { (*self.skb()).gso_size } as usize;
        if segment == 0 {
            return self.len() - ETHERNET_HEADER_LEN;
        }
        // An SCTP packet whose parts are not seen from here (`GSO_BY_FRAGS` in `linux/skbuff.h`); its sender cut them by
        // the path's MTU.
        if segment == 0xffff {
            return 0;
        }
        let transport = match network.protocol {
            protocol::TCP => {
                let offset: u8 = self.load(network.payload_offset + 12).unwrap_or(0x50);
                (offset >> 4) as usize * 4
            }
            _ => 8,
        };
        network.payload_offset - ETHERNET_HEADER_LEN + transport + segment
    }

    /// Reads the headers, which may first have to be made contiguous in memory.
    #[inline(always)]
    pub fn headers<F: Family>(&self) -> Result<Headers<F>, Outcome> {
        match self.contiguous_headers() {
            Err(Outcome::Truncated) => {
                let len = self.ctx.len();
                // Fails when memory is short; then the frame stays as it is, and is still truncated to us.
                let _ = self
                    .ctx
                    .pull_data(if len < HEADERS_LEN { len } else { HEADERS_LEN });
                self.contiguous_headers()
            }
            headers => headers,
        }
    }

    /// What of the headers is a flow's name: addresses, protocol and ports.
    #[inline(always)]
    pub fn name<F: Family>(&self) -> Option<(NetworkHeader<F::Address>, Ports)> {
        self.pull(HEADERS_LEN);
        let network = F::network_header(self, ETHERNET_HEADER_LEN).ok()?;
        let ports = match network.protocol {
            _ if matches!(network.part, Part::Later) => return None,
            protocol::TCP | protocol::UDP | protocol::SCTP => self.load(network.payload_offset)?,
            protocol if protocol == F::ICMP => self
                .load::<IcmpHeader>(network.payload_offset)?
                .echo_ports::<F>()
                .ok()?,
            _ => return None,
        };
        Some((network, ports))
    }

    #[inline(always)]
    fn contiguous_headers<F: Family>(&self) -> Result<Headers<F>, Outcome> {
        let network = F::network_header(self, ETHERNET_HEADER_LEN)?.complete(self)?;
        let transport = match TransportHeader::read::<F>(self, &network) {
            Err(Outcome::Truncated) => return Err(Outcome::Truncated),
            transport => transport,
        };
        Ok(Headers { network, transport })
    }

    /// Makes the first `len` bytes contiguous, or all of a shorter packet.
    ///
    /// Pointers into the packet are void afterwards.
    #[inline(always)]
    pub fn pull(&self, len: u32) {
        let available = self.ctx.len();
        // Fails when memory is short; then the frame stays as it is, and is truncated to us.
        let _ = self
            .ctx
            .pull_data(if available < len { available } else { len });
    }

    /// Points to the `T` at `offset`, if the contiguous part of the packet holds it.
    ///
    /// The pointer is good until a helper changes the packet. It is aligned as the kernel aligns packets: the IP header
    /// to a word, except where the machine reads unaligned words as fast (`NET_IP_ALIGN`).
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
        // SAFETY: `at` checked the bounds; the verifier checks them again, and makes the packet writable.
        unsafe { place.write(value) };
        Ok(())
    }

    /// Adds `delta` to the Internet checksum at `offset`.
    ///
    /// Pointers into the packet are void afterwards.
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
            // 0 stands for no checksum (RFC 768), and stays.
            flags |= u64::from(BPF_F_MARK_MANGLED_0);
        }
        self.ctx
            .l4_csum_replace(offset, 0, u64::from(delta), flags)
            .map_err(|_| Outcome::RewriteFailed)
    }

    /// Adds `delta` to the sum of the whole packet that the network device has given (`CHECKSUM_COMPLETE`), if it has.
    #[inline(always)]
    pub fn update_device_checksum(&self, delta: u16) {
        // SAFETY: the context is valid, see `ether_type`. The helper fails where there is no such sum, which is no error.
        unsafe { bpf_csum_update(self.skb(), u32::from(delta)) };
    }
}

/// Where the words are that have changed.
#[derive(Clone, Copy)]
pub enum ChecksumPart {
    /// In the pseudo header only: all that may change in a checksum left to the device (`CHECKSUM_PARTIAL`).
    PseudoHeader,
    /// In the packet's own bytes, which such a device sums up by itself.
    Payload,
}

impl Bytes for Packet {
    #[inline(always)]
    fn load<T: AnyBitPattern>(&self, offset: usize) -> Option<T> {
        // SAFETY: `at` checked the bounds, and any bit pattern is a `T`.
        self.at::<T>(offset).map(|place| unsafe { place.read() })
    }

    #[inline(always)]
    fn load_scattered(&self, offset: usize) -> Option<[u8; 4]> {
        rare::load_scattered(self, offset)
    }

    #[inline(always)]
    fn len(&self) -> usize {
        self.ctx.len() as usize
    }

    #[inline(always)]
    fn skip_extensions(&self, place: Place) -> Result<Place, Outcome> {
        rare::skip_extensions(self, place)
    }
}
