//! Tracing: packets and what the kernel half decided for them.

use bytemuck::{Pod, Zeroable};

use crate::{
    flow::Flow,
    network::{Address, Ipv4Address, Ipv6Address, Port},
    outcome::Outcome,
    tuple::{Side, Tuple},
};

/// The packets to trace, in both directions of a flow: the only element of the array `TRACE_FILTER`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct TraceFilter {
    /// The clients' network, as it lies in memory. IPv4 uses the first word only.
    network: [u32; 4],
    /// The mask of the network.
    mask: [u32; 4],
    /// The length of the clients' addresses in bytes; 0 for both families.
    address_len: u32,
    /// The port that the client connects to; 0 for any.
    pub port: Port,
    /// IP protocol number; 0 for any.
    pub protocol: u8,
    padding: u8,
}

const _: () = assert!(size_of::<TraceFilter>() == 40);

#[cfg(feature = "user")]
// SAFETY: the type is `bytemuck::Pod`, which requires more than aya's `Pod`.
unsafe impl aya::Pod for TraceFilter {}

impl TraceFilter {
    /// All IPv4 and IPv6 packets.
    pub const ANY: Self = Self {
        network: [0; 4],
        mask: [0; 4],
        address_len: 0,
        port: Port::new(0),
        protocol: 0,
        padding: 0,
    };

    /// Restricts the filter to clients in the network of `address` with this prefix length.
    #[must_use]
    pub fn client<A: Address>(self, address: &A, prefix_len: u8) -> Self {
        let mut filter = Self {
            address_len: Self::len_of::<A>(),
            ..self
        };
        let mut rest = u32::from(prefix_len);
        for (index, word) in words(address).enumerate() {
            let bits = rest.min(u32::BITS);
            rest -= bits;
            let mask = u32::MAX.checked_shl(u32::BITS - bits).unwrap_or(0).to_be();
            filter.mask[index] = mask;
            filter.network[index] = word & mask;
        }
        filter
    }

    #[expect(clippy::cast_possible_truncation, reason = "4 or 16")]
    const fn len_of<A>() -> u32 {
        size_of::<A>() as u32
    }

    /// Returns `true` if the filter admits packets whose client is unknown, or whose headers cannot be read.
    #[inline(always)]
    pub const fn admits_unknown(&self) -> bool {
        self.address_len == 0 && self.port.is_zero() && self.protocol == 0
    }

    /// Returns `true` if the filter admits packets of this protocol, between this client and `port`.
    #[inline(always)]
    pub fn admits<A: Address>(&self, client: &A, port: Port, protocol: u8) -> bool {
        if self.address_len != 0 && self.address_len != Self::len_of::<A>() {
            return false;
        }
        let mut other = 0;
        for (index, word) in words(client).enumerate() {
            other |= (word & self.mask[index]) ^ self.network[index];
        }
        other == 0
            && (self.port.is_zero() || self.port == port)
            && (self.protocol == 0 || self.protocol == protocol)
    }
}

/// The words of an address, as they lie in memory.
#[inline(always)]
fn words<A: Address>(address: &A) -> impl Iterator<Item = u32> {
    bytemuck::bytes_of(address)
        .chunks_exact(4)
        .map(bytemuck::pod_read_unaligned)
}

/// The maximum length of the frame in a [`TraceRecord`]: Ethernet, IPv6 with some extensions, TCP with options.
pub const TRACE_FRAME_LEN: usize = 128;

/// The decision for a packet. Its number in [`TraceRecord`] is 0 or 1 if the packet was forwarded, otherwise the
/// outcome's number plus 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Forwarded.
    Forwarded {
        /// `true` if the next hop was known and no kernel lookup was needed.
        is_addressed: bool,
    },
    /// Not forwarded.
    Refused(Outcome),
    /// Not forwarded, with an outcome that this version does not know.
    Unknown(u32),
}

impl Decision {
    /// Forwarded after a kernel lookup.
    const FORWARDED: u32 = 0;
    /// Forwarded to a known next hop.
    const ADDRESSED: u32 = 1;
    /// Outcomes' numbers start here.
    const OUTCOMES: u32 = 2;

    /// The decision's number.
    #[inline(always)]
    pub const fn number(self) -> u32 {
        match self {
            Self::Forwarded {
                is_addressed: false,
            } => Self::FORWARDED,
            Self::Forwarded { is_addressed: true } => Self::ADDRESSED,
            Self::Refused(outcome) => Self::OUTCOMES + outcome as u32,
            Self::Unknown(outcome) => Self::OUTCOMES.saturating_add(outcome),
        }
    }

    /// The decision with this number.
    pub fn from_number(number: u32) -> Self {
        match number {
            Self::FORWARDED => Self::Forwarded {
                is_addressed: false,
            },
            Self::ADDRESSED => Self::Forwarded { is_addressed: true },
            _ => {
                let outcome = number - Self::OUTCOMES;
                Outcome::from_number(outcome).map_or(Self::Unknown(outcome), Self::Refused)
            }
        }
    }
}

/// A traced packet: a record of the ring buffer `TRACE`.
///
/// The length of a record tells its family.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceRecord<A> {
    /// When it arrived: `CLOCK_MONOTONIC` in nanoseconds, accurate to a few milliseconds.
    pub time_ns: u64,
    /// The packets that the flow had counted in this direction before.
    pub packets_before: u64,
    /// Length of the frame.
    pub len: u32,
    /// The length of the part in `frame`.
    pub frame_len: u32,
    /// The [`Side`] that it arrived on, by its number.
    pub side: u32,
    /// 1 if a flow was found when it arrived.
    pub was_found: u32,
    /// 1 if there was a flow afterwards. Both entries are filled then.
    pub has_flow: u32,
    /// The [`Decision`], by its number.
    pub decision: u32,
    /// The tuple, with zeros for what could not be read.
    pub tuple: Tuple<A>,
    /// The tuple of the other direction.
    pub peer_tuple: Tuple<A>,
    /// The entry of the packet's direction, after the packet.
    pub entry: Flow<A>,
    /// The entry of the other direction.
    pub peer: Flow<A>,
    /// The packet as it arrived.
    pub frame: [u8; TRACE_FRAME_LEN],
}

const _: () = assert!(size_of::<TraceRecord<Ipv4Address>>() == 328);
const _: () = assert!(size_of::<TraceRecord<Ipv6Address>>() == 424);

// SAFETY: all fields are zeroable.
unsafe impl<A: Zeroable> Zeroable for TraceRecord<A> {}
// SAFETY: `repr(C)` without padding, as the size assertions prove for both address types.
unsafe impl<A: Pod> Pod for TraceRecord<A> {}

impl<A: Address> TraceRecord<A> {
    /// The side that it arrived on; `None` for a record of another version.
    pub const fn side(&self) -> Option<Side> {
        Side::from_number(self.side)
    }

    /// The packet as it arrived, up to [`TRACE_FRAME_LEN`] bytes.
    pub fn frame(&self) -> &[u8] {
        let len = usize::try_from(self.frame_len).unwrap_or(TRACE_FRAME_LEN);
        &self.frame[..len.min(TRACE_FRAME_LEN)]
    }

    /// The flow: the client's tuple, the original entry and the reply entry; `None` if there was none.
    pub fn flow(&self) -> Option<(&Tuple<A>, &Flow<A>, &Flow<A>)> {
        if self.has_flow == 0 {
            return None;
        }
        match self.side()? {
            Side::Cluster => Some((&self.tuple, &self.entry, &self.peer)),
            Side::Egress => Some((&self.peer_tuple, &self.peer, &self.entry)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(octets: [u8; 4]) -> Ipv4Address {
        Ipv4Address { octets }
    }

    fn v6(first: u8, last: u8) -> Ipv6Address {
        let mut octets = [0; 16];
        (octets[0], octets[15]) = (first, last);
        Ipv6Address { octets }
    }

    #[test]
    fn a_filter_admits_the_clients_of_its_network_and_family_only() {
        let admits_v4 =
            |filter: &TraceFilter, address| filter.admits(&v4(address), Port::new(80), 6);
        let admits_v6 = |filter: &TraceFilter, address| filter.admits(&address, Port::new(80), 6);
        let filter = TraceFilter::ANY.client(&v4([10, 128, 3, 7]), 22);
        assert!(admits_v4(&filter, [10, 128, 0, 1]));
        assert!(!admits_v4(&filter, [10, 128, 4, 1]));
        assert!(!admits_v6(&filter, v6(10, 1)));
        assert!(!filter.admits_unknown());
        let filter = TraceFilter::ANY.client(&v6(0xfd, 1), 128);
        assert!(admits_v6(&filter, v6(0xfd, 1)));
        assert!(!admits_v6(&filter, v6(0xfd, 2)));
        assert!(!admits_v4(&filter, [0xfd, 0, 0, 0]));
        let filter = TraceFilter::ANY.client(&v4([0; 4]), 0);
        assert!(admits_v4(&filter, [255; 4]));
        assert!(!admits_v6(&filter, v6(0, 0)));
        assert!(admits_v6(&TraceFilter::ANY, v6(1, 1)));
    }

    #[test]
    fn a_filter_by_port_and_protocol_admits_no_others() {
        let filter = TraceFilter {
            port: Port::new(80),
            protocol: 6,
            ..TraceFilter::ANY
        };
        let client = v4([1; 4]);
        assert!(filter.admits(&client, Port::new(80), 6));
        assert!(!filter.admits(&client, Port::new(81), 6));
        assert!(!filter.admits(&client, Port::new(80), 17));
        assert!(!filter.admits_unknown());
        assert!(TraceFilter::ANY.admits_unknown());
        assert!(TraceFilter::ANY.admits(&client, Port::new(81), 17));
    }

    #[test]
    fn a_decision_is_known_by_its_number() {
        let forwarded = [true, false].map(|is_addressed| Decision::Forwarded { is_addressed });
        let refused = Outcome::ALL.iter().map(|it| Decision::Refused(*it));
        for decision in forwarded.into_iter().chain(refused) {
            assert_eq!(Decision::from_number(decision.number()), decision);
        }
        assert_eq!(Decision::from_number(63 + 2), Decision::Unknown(63));
    }
}
