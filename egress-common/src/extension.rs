//! IPv6 extension headers (RFC 8200, section 4), which may come between the IP header and the transport header.

use crate::{bytes::Bytes, outcome::Outcome};

/// Protocol numbers of the extension headers that are skipped.
pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const DESTINATION: u8 = 60;

/// The maximum number of extension headers that are skipped. The order that RFC 8200 recommends has at most five before
/// the payload. More occur only in attacks.
const HEADERS: usize = 5;

/// The limit of the extension headers' end, from the start of the frame. The verifier needs a bound, and no legitimate
/// packet comes close to this one.
const END: usize = 0x3ff;

/// A position in a packet, and the protocol of what starts there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The protocol number of what starts here.
    pub protocol: u8,
    /// The offset of the fragment header that was skipped; 0 for none.
    pub fragment: usize,
    /// The offset from the start of the frame, in bytes; below 1024.
    pub offset: usize,
}

/// Returns `true` if this is the protocol number of an extension header.
#[inline(always)]
pub const fn is_extension_header(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION)
}

/// A frame with extension headers to skip.
pub trait Frame: Bytes {
    /// Skips all extension headers, from the first one on, as [`walk`] does. A frame may have a cheaper way.
    ///
    /// # Errors
    ///
    /// As [`walk`].
    fn skip_extensions(&self, place: Place) -> Result<Place, Outcome> {
        walk(self, place)
    }
}

impl Frame for [u8] {}

/// Skips all extension headers, from the first one on.
///
/// # Errors
///
/// [`Outcome::Truncated`] if the frame is too short, [`Outcome::Malformed`] if the headers are too long.
#[inline(always)]
pub fn walk(packet: &(impl Bytes + ?Sized), mut place: Place) -> Result<Place, Outcome> {
    for _ in 0..HEADERS {
        if !is_extension_header(place.protocol) {
            break;
        }
        let [next, len, high, low]: [u8; 4] =
            packet.load(place.offset).ok_or(Outcome::Truncated)?;
        let len = match place.protocol {
            FRAGMENT => {
                place.fragment = place.offset;
                // The upper 13 bits are the fragment offset. A later fragment has no further headers.
                if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                    place.protocol = next;
                    place.offset += 8;
                    break;
                }
                8
            }
            // Segments left: this is not the final destination, and the pod does not route.
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
    /// Encodes the place in 28 bits, for a global function, which can return only a number.
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

    /// Decodes the result of [`Self::to_bits`].
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
