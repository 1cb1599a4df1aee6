//! Hand-made IP fragments, in sizes and orders that no kernel sends.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv6FragmentHeader, Ipv6Header};
use socket2::{Domain, Protocol, Socket, Type};

use crate::namespace::Namespace;

/// Cuts an IP packet without options or extension headers into fragments with `len` bytes of payload each. `len` is a
/// multiple of 8.
pub fn cut(packet: &[u8], len: usize, id: u16) -> Result<Vec<Vec<u8>>> {
    ensure!(
        len > 0 && len.is_multiple_of(8),
        "fragments are cut at multiples of 8"
    );
    let header_len = match packet.first().map(|byte| byte >> 4) {
        Some(4) => Ipv4Header::MIN_LEN,
        _ => Ipv6Header::LEN,
    };
    let (header, payload) = packet.split_at_checked(header_len).context("too short")?;
    let parts = payload.chunks(len);
    let last = parts.len() - 1;
    parts
        .enumerate()
        .map(|(index, part)| {
            let offset = IpFragOffset::try_new(u16::try_from(index * len / 8)?)?;
            let more = index < last;
            let header = if header_len == Ipv4Header::MIN_LEN {
                let (mut header, _) = Ipv4Header::from_slice(header)?;
                header.identification = id;
                header.dont_fragment = false;
                header.more_fragments = more;
                header.fragment_offset = offset;
                header.set_payload_len(part.len())?;
                header.header_checksum = header.calc_header_checksum();
                header.to_bytes().to_vec()
            } else {
                let (mut header, _) = Ipv6Header::from_slice(header)?;
                let fragment = Ipv6FragmentHeader::new(header.next_header, offset, more, id.into());
                header.next_header = IpNumber::IPV6_FRAGMENTATION_HEADER;
                header.set_payload_length(Ipv6FragmentHeader::LEN + part.len())?;
                [&header.to_bytes()[..], &fragment.to_bytes()].concat()
            };
            Ok([&header, part].concat())
        })
        .collect()
}

/// Sends IP packets from `namespace` unchanged, header included.
pub fn send<'p>(
    namespace: &Namespace,
    to: SocketAddr,
    packets: impl IntoIterator<Item = &'p Vec<u8>> + Send,
) -> Result<()> {
    const RAW: i32 = 255;
    namespace
        .run(|| {
            let socket = Socket::new(
                Domain::for_address(to),
                Type::RAW,
                Some(Protocol::from(RAW)),
            )?;
            if to.is_ipv4() {
                socket.set_header_included_v4(true)?;
            } else {
                socket.set_header_included_v6(true)?;
            }
            for packet in packets {
                socket.send_to(packet, &SocketAddr::new(to.ip(), 0).into())?;
            }
            Ok(())
        })
        .with_context(|| format!("sending packets to {to} from the {}", namespace.role()))
}
