//! IPv6 extension headers (RFC 8200, section 4), which may stand between the IP header and the transport header.

use crate::{bytes::Bytes, outcome::Outcome};

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
    /// Where a fragment header was passed on the way; 0 for none.
    pub fragment: usize,
    /// Distance from the start of the frame, in bytes; below 1024.
    pub offset: usize,
}

/// Whether this protocol number is that of an extension header.
#[inline(always)]
pub const fn is_one(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// A frame whose extension headers can be skipped.
pub trait Frame: Bytes {
    /// Goes from the first extension header to what follows the last one: [`walk`], unless the frame has a cheaper way.
    ///
    /// # Errors
    ///
    /// As [`walk`].
    fn skip_extensions(&self, place: Place) -> Result<Place, Outcome> {
        walk(self, place)
    }
}

impl Frame for [u8] {}

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
                place.fragment = place.offset;
                // Offset in the upper 13 bits. What follows is the middle of something, and has no header.
                if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                    place.protocol = next;
                    place.offset += 8;
                    break;
                }
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
    /// The place as a number, for a function that can give back no more: 28 bits.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "both offsets have ten bits"
    )]
    pub const fn to_bits(self) -> u32 {
        (self.protocol as u32) << 20
            | ((self.fragment & END) as u32) << 10
            | (self.offset & END) as u32
    }

    /// The place that a number stands for.
    #[inline(always)]
    pub const fn from_bits(bits: u32) -> Self {
        Self {
            protocol: (bits >> 20 & 0xff) as u8,
            fragment: (bits >> 10) as usize & END,
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
                fragment: 0,
                offset: 54,
            },
            Place {
                protocol: 255,
                fragment: END - 8,
                offset: END,
            },
        ] {
            assert_eq!(Place::from_bits(place.to_bits()), place);
        }
    }
}
