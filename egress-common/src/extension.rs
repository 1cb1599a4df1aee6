//! IPv6 extension headers (RFC 8200, section 4), which may stand between the IP header and the transport header.

use crate::{outcome::Outcome, packet::Bytes};

/// Protocol numbers of the headers that are looked behind.
pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const DESTINATION: u8 = 60;

/// How many headers are looked behind. RFC 8200 recommends an order in which five can come before the payload; more are
/// not met outside of attacks.
const HEADERS: usize = 5;

/// Where the headers have to end, from the start of the frame. No sane packet comes near it, and the kernel's verifier
/// wants to know a bound.
const END: usize = 0x3ff;

/// A place in a packet: what begins there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Protocol number of what begins here.
    pub protocol: u8,
    /// Whether a fragment header was passed on the way, other than that of a whole packet (RFC 6946).
    pub is_fragment: bool,
    /// Distance from the start of the frame, in bytes; below 1024.
    pub offset: usize,
}

/// Whether this protocol number is that of an extension header.
#[inline(always)]
pub const fn is_one(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// Goes from the first extension header to what follows the last one.
///
/// # Errors
///
/// [`Outcome::Truncated`] if the frame ends before, [`Outcome::Malformed`] if the headers are longer than any should be.
#[inline(always)]
pub fn walk(packet: &(impl Bytes + ?Sized), mut place: Place) -> Result<Place, Outcome> {
    for _ in 0..HEADERS {
        if !is_one(place.protocol) {
            break;
        }
        let [next, len, high, low]: [u8; 4] =
            packet.load(place.offset).ok_or(Outcome::Truncated)?;
        let len = match place.protocol {
            FRAGMENT => {
                // Offset in the upper 13 bits, "more" in the lowest.
                place.is_fragment |= u16::from_be_bytes([high, low]) & 0xfff9 != 0;
                8
            }
            // Segments left: the destination is not the final one, and the pod routes for nobody.
            ROUTING if low != 0 => break,
            _ => (len as usize + 1) * 8,
        };
        place.protocol = next;
        place.offset += len;
        if place.offset > END {
            return Err(Outcome::Malformed);
        }
    }
    Ok(place)
}

impl Place {
    const FRAGMENT_BIT: u32 = 1 << 24;

    /// The place as a number, for a function that can give back no more: 24 bits and one.
    #[inline(always)]
    pub const fn to_bits(self) -> u32 {
        let fragment = if self.is_fragment {
            Self::FRAGMENT_BIT
        } else {
            0
        };
        fragment | (self.protocol as u32) << 16 | (self.offset & END) as u32
    }

    /// The place that a number stands for.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self {
            protocol: (bits >> 16 & 0xff) as u8,
            is_fragment: bits & Self::FRAGMENT_BIT != 0,
            offset: bits as usize & END,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_survives_being_a_number() {
        for place in [
            Place {
                protocol: 6,
                is_fragment: false,
                offset: 54,
            },
            Place {
                protocol: 255,
                is_fragment: true,
                offset: END,
            },
        ] {
            assert_eq!(Place::from_bits(place.to_bits()), place);
        }
    }
}
