//! The kernel half's packet parser and NAT arithmetic, on the host.

#![no_main]

use crc::{CRC_32_ISCSI, Crc};
use egress_common::{
    Address, Bytes as _, ETHERNET_HEADER_LEN, Family, NatRange, PacketKind, Pair, Part, Port,
    Ports, Side, Translation, TransportHeader, Tuple, V4, V6, checksum, mss, protocol, sctp,
};
use libfuzzer_sys::fuzz_target;

const CRC32C: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

fuzz_target!(|input: (u16, u16, Vec<u8>)| {
    let (first, second, frame) = input;
    read::<V4>(&frame, Port::new(first), Port::new(second));
    read::<V6>(&frame, Port::new(first), Port::new(second));
    patch_sctp(&frame, first, second);
    let range = NatRange::without((first, second));
    assert!(range.contains(Port::new(first)) <= !(first..=second).contains(&first));
});

/// Parses a frame. Everything found lies within the frame, and its tuple survives translation there and back.
fn read<F: Family>(frame: &[u8], nat_port: Port, target_port: Port) {
    let Ok(network) =
        F::network_header(frame, ETHERNET_HEADER_LEN).and_then(|network| network.complete(frame))
    else {
        return;
    };
    assert!(network.payload_offset >= ETHERNET_HEADER_LEN + F::HEADER_LEN);
    assert!(network.payload_offset + network.payload_len <= frame.len());
    if network.part != Part::Whole {
        let fragment = F::fragment(frame).expect("its header was parsed before");
        if fragment
            .check(network.protocol, network.payload_len)
            .is_ok()
        {
            assert!(usize::from(fragment.offset) + network.payload_len <= 0xffff);
            assert!(fragment.offset >= 8);
        }
    }
    let Ok(PacketKind::Transport(transport)) = PacketKind::read::<F>(frame, &network) else {
        return;
    };
    assert!(
        network.part != Part::Later,
        "a later fragment has no transport header"
    );
    let checksum = network.payload_offset + TransportHeader::checksum_offset(network.protocol);
    assert!(
        frame.load::<u16>(checksum).is_some(),
        "the checksum is outside the packet"
    );
    translate(
        network.tuple(Side::Cluster, transport.ports),
        nat_port,
        target_port,
    );
    if network.protocol == protocol::TCP
        && let Ok(Some(option)) = mss::find(frame, network.payload_offset)
        && let Ok(Some(clamp)) = mss::clamp(frame, network.payload_offset, option, 1360)
    {
        assert_eq!(clamp.offset, option + 2);
        assert!(frame.load::<u16>(clamp.offset).is_some());
    }
}

fn translate<A: Address>(tuple: Tuple<A>, nat_port: Port, target_port: Port) {
    let to = Pair {
        source: tuple.addresses.destination,
        destination: tuple.addresses.source,
    };
    let ports = Ports {
        source: nat_port,
        destination: target_port,
    };
    let there = Translation::new(&tuple, to, ports);
    let reply = there.peer(Side::Cluster, tuple.protocol);
    let back = Translation::new(&reply, tuple.addresses.swapped(), tuple.ports.swapped());
    assert!(back.peer(Side::Egress, tuple.protocol) == tuple);
    // A checksum updated there and back is unchanged (RFC 1624), apart from the two representations of zero.
    let plain = 0x1234;
    let changed = checksum::apply(
        checksum::apply(plain, there.address_delta),
        there.port_delta,
    );
    let restored = checksum::apply(
        checksum::apply(changed, back.address_delta),
        back.port_delta,
    );
    assert_eq!(restored, plain);
}

/// Replaces the first four bytes and patches the CRC instead of computing it again.
fn patch_sctp(bytes: &[u8], first: u16, second: u16) {
    let Some((old, rest)) = bytes.split_first_chunk::<4>() else {
        return;
    };
    if bytes.len() > 0xffff {
        return;
    }
    let [a, b] = first.to_be_bytes();
    let [c, d] = second.to_be_bytes();
    let new = [a, b, c, d];
    let crc = |ports: &[u8]| {
        let mut digest = CRC32C.digest();
        digest.update(ports);
        digest.update(rest);
        digest.finalize()
    };
    let delta = sctp::checksum_delta(
        u32::from_le_bytes(*old),
        u32::from_le_bytes(new),
        bytes.len(),
    );
    assert_eq!(crc(old) ^ delta, crc(&new));
}
