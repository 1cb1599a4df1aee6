//! Offsets in an IP packet, even a truncated one.

use crate::family::Family;
use crate::protocol::{DESTINATION_OPTIONS, FRAGMENT, HOP_BY_HOP, ROUTING};

/// What the IP header and the extension headers of a packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The family, according to the version field.
    pub family: Family,
    /// The protocol after these headers.
    pub protocol: u8,
    /// The offset of the payload, at most the packet's length.
    pub payload: usize,
    /// The fragment's fields, if the packet is one.
    pub fragment: Option<Fragment>,
}

/// The fields of a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// The identification.
    pub id: u32,
    /// The offset of the fragment's bytes in the packet.
    pub offset: usize,
    /// Whether more fragments follow.
    pub more: bool,
    /// The offsets of IPv6's fragment header and of the next-header field that announces it.
    pub header: Option<(usize, usize)>,
}

impl Layout {
    /// Parses a packet. `None` without a whole IP header.
    pub fn of(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => Self::of_v4(packet),
            6 => Self::of_v6(packet),
            _ => None,
        }
    }

    fn of_v4(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<20>()?;
        let word = u16::from_be_bytes([header[6], header[7]]);
        let (offset, more) = (usize::from(word & 0x1fff) * 8, word & 0x2000 != 0);
        let fragment = (offset > 0 || more).then(|| Fragment {
            id: u32::from(u16::from_be_bytes([header[4], header[5]])),
            offset,
            more,
            header: None,
        });
        let header_len = usize::from(header[0] & 0x0f) * 4;
        Some(Self {
            family: Family::V4,
            protocol: header[9],
            payload: header_len.clamp(20, packet.len()),
            fragment,
        })
    }

    fn of_v6(packet: &[u8]) -> Option<Self> {
        let header = packet.first_chunk::<40>()?;
        let mut layout = Self {
            family: Family::V6,
            protocol: header[6],
            payload: 40,
            fragment: None,
        };
        let mut named_at = 6;
        while let Some(extension) = layout.extension(packet) {
            let at = layout.payload;
            if layout.protocol == FRAGMENT {
                let word = u16::from_be_bytes([extension[2], extension[3]]);
                let fragment = Fragment {
                    id: u32::from_be_bytes([
                        extension[4],
                        extension[5],
                        extension[6],
                        extension[7],
                    ]),
                    offset: usize::from(word & 0xfff8),
                    more: word & 1 != 0,
                    header: Some((at, named_at)),
                };
                if fragment.offset > 0 || fragment.more {
                    layout.fragment = Some(fragment);
                }
            }
            let length = match layout.protocol {
                FRAGMENT => 8,
                _ => 8 + usize::from(extension[1]) * 8,
            };
            named_at = at;
            layout.protocol = extension[0];
            layout.payload = (at + length).min(packet.len());
            if layout.is_later_fragment() {
                break;
            }
        }
        Some(layout)
    }

    fn extension<'p>(&self, packet: &'p [u8]) -> Option<&'p [u8; 8]> {
        let kinds = [HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS];
        if !kinds.contains(&self.protocol) {
            return None;
        }
        packet.get(self.payload..)?.first_chunk()
    }

    /// Whether the transport header is in another fragment.
    pub fn is_later_fragment(&self) -> bool {
        self.fragment.is_some_and(|fragment| fragment.offset > 0)
    }

    /// Whether the payload begins with a transport header of this protocol.
    pub fn is(&self, protocol: u8) -> bool {
        self.protocol == protocol && !self.is_later_fragment()
    }

    /// Whether this ICMP message, of type `kind`, is an error.
    pub fn is_error(&self, kind: u8) -> bool {
        self.is(self.family.icmp())
            && match self.family {
                Family::V4 => matches!(kind, 3 | 4 | 5 | 11 | 12),
                Family::V6 => kind < 128,
            }
    }
}

/// The 16-bit number at this offset.
pub fn word(packet: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*packet.get(at..)?.first_chunk()?))
}

pub fn set_word(packet: &mut [u8], at: usize, value: u16) {
    packet[at..at + 2].copy_from_slice(&value.to_be_bytes());
}
