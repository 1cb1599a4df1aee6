//! What holds after every packet, whatever it was.

use std::net::IpAddr;

use egress_common::{Address, Outcome, Side, Verdict, sctp::chunk};
use egress_userspace::dataplane::FamilyMaps;

use crate::{
    bench::{Bench, DROP, FORWARD, PASS},
    frames::{addresses, endpoints},
    steps::{Seen, family},
};

/// Sends packets, and looks at what becomes of them.
pub struct Observer<'b> {
    bench: &'b mut Bench,
    seen: Vec<Seen>,
    forwarded: u64,
    rules_before: u64,
}

impl<'b> Observer<'b> {
    pub fn new(bench: &'b mut Bench) -> Self {
        let rules_before = packets_by_rule(bench);
        Self {
            bench,
            seen: Vec::new(),
            forwarded: 0,
            rules_before,
        }
    }

    /// The packets that were forwarded so far.
    pub fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// A frame arrives.
    pub fn send(&mut self, side: Side, frame: &[u8]) {
        let before = counts(self.bench);
        let ran = self.bench.run(side, frame).expect("the kernel runs it");
        let after = counts(self.bench);
        let counted: Vec<_> = Outcome::ALL
            .iter()
            .zip(before.iter().zip(&after))
            .filter(|(_, (before, after))| before != after)
            .map(|(outcome, (before, after))| (*outcome, after - before))
            .collect();
        match (ran.verdict, &counted[..]) {
            (FORWARD, []) => self.check_forwarded(side, frame, ran.frame),
            (FORWARD, [(outcome, 1)]) => {
                assert_eq!(outcome.verdict(), Verdict::Reject, "{outcome:?}");
                check_refusal(frame, &ran.frame);
            }
            (PASS, [(outcome, 1)]) => {
                assert_eq!(outcome.verdict(), Verdict::Pass, "{outcome:?}");
                assert_eq!(ran.frame, frame, "{outcome:?}: changed");
            }
            (DROP, [(outcome, 1)]) => {
                assert_ne!(outcome.verdict(), Verdict::Pass, "{outcome:?}");
            }
            (verdict, counted) => panic!("verdict {verdict}, counted {counted:?}"),
        }
    }

    /// Nothing leaves `net1` but with the reserved address, and nothing enters the cluster but to who asked for it.
    fn check_forwarded(&mut self, side: Side, arrived: &[u8], left: Vec<u8>) {
        let (source, destination) = addresses(&left);
        let (_, sent_to) = addresses(arrived);
        let family = family(source);
        match side {
            Side::Cluster => {
                assert_eq!(source, family.reserved, "it leaves net1");
                assert_eq!(sent_to, family.router, "it was not for the router");
            }
            Side::Egress => {
                assert_eq!(source, family.router, "it enters the cluster");
                assert_eq!(
                    sent_to, family.reserved,
                    "it was not for the reserved address"
                );
                let asked = self.seen.iter().any(|seen| {
                    seen.side == Side::Cluster && addresses(&seen.frames[0]).0 == destination
                });
                assert!(asked, "{destination} has asked for nothing");
            }
        }
        assert_eq!(left.len(), arrived.len());
        assert_eq!(
            header_is_right(arrived),
            header_is_right(&left),
            "the IP header's checksum"
        );
        if let (Some(before), Some(after)) =
            (transport_is_right(arrived), transport_is_right(&left))
        {
            assert_eq!(before, after, "the transport's checksum");
        }
        // An ICMP error is forwarded, and counted by no rule.
        if let Ok((from, to)) = endpoints(&left) {
            self.forwarded += u64::from(!is_later_fragment(&left));
            self.seen.push(Seen {
                side,
                frames: [arrived.to_vec(), left],
                ends: [from, to],
            });
        }
    }

    /// At the end every flow has both of its entries; then they all go, so that each sequence begins in an empty table.
    pub fn finish(self) {
        let flows = self.bench.flows().len();
        assert_eq!(
            self.bench.entries(),
            2 * flows,
            "an entry is without the other"
        );
        let counted = packets_by_rule(self.bench) - self.rules_before;
        assert!(
            counted >= self.forwarded,
            "{} were forwarded, {counted} counted",
            self.forwarded
        );
        let maps = &mut self.bench.dataplane.maps;
        end_flows(&mut maps.v4);
        end_flows(&mut maps.v6);
    }
}

fn end_flows<A: Address>(maps: &mut FamilyMaps<A>) {
    let keys: Vec<_> = maps.flows.keys().flatten().collect();
    for key in keys {
        maps.flows.remove(&key).expect("nobody else removes it");
    }
}

fn counts(bench: &Bench) -> Vec<u64> {
    let count = |outcome: &Outcome| bench.count(*outcome).expect("the map is there");
    Outcome::ALL.iter().map(count).collect()
}

/// Packets that all rules together have counted.
fn packets_by_rule(bench: &Bench) -> u64 {
    let rules = bench.dataplane.maps.rules().expect("the map is there");
    rules
        .iter()
        .map(|rule| rule.original.packets + rule.reply.packets)
        .sum()
}

/// What tells a sender that its packet was dropped goes to that sender, from where it sent the packet to.
fn check_refusal(refused: &[u8], answer: &[u8]) {
    let (source, destination) = addresses(refused);
    assert_eq!(addresses(answer), (destination, source));
    assert!(header_is_right(answer));
    let (protocol, payload) = transport(answer);
    match protocol {
        1 => assert!(matches!(payload[0], 3 | 11)),
        58 => assert!(matches!(payload[0], 2 | 3)),
        132 => assert_eq!(payload[12], chunk::ABORT),
        other => panic!("protocol {other}"),
    }
    if protocol != 132 {
        assert_eq!(transport_is_right(answer), Some(true));
    }
}

/// The sum of 16-bit words, as RFC 1071 folds it: all ones for bytes that have their checksum among them.
pub fn folded(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(*word.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("it was folded")
}

/// Whether the IPv4 header's checksum is right; IPv6 has none.
fn header_is_right(frame: &[u8]) -> bool {
    frame[14] >> 4 != 4 || folded(&frame[14..14 + header_len(frame)]) == 0xffff
}

fn header_len(frame: &[u8]) -> usize {
    usize::from(frame[14] & 0x0f) * 4
}

/// Protocol number and payload of an IP packet without extension headers.
fn transport(frame: &[u8]) -> (u8, &[u8]) {
    if frame[14] >> 4 == 4 {
        let end = 14 + usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        (
            frame[23],
            &frame[14 + header_len(frame)..end.min(frame.len())],
        )
    } else {
        let end = 54 + usize::from(u16::from_be_bytes([frame[18], frame[19]]));
        (frame[20], &frame[54..end.min(frame.len())])
    }
}

fn is_later_fragment(frame: &[u8]) -> bool {
    match frame[14] >> 4 {
        4 => u16::from_be_bytes([frame[20], frame[21]]) & 0x1fff != 0,
        _ => frame[20] == 44,
    }
}

/// Whether the transport's Internet checksum is right, where the packet is whole and has one.
fn transport_is_right(frame: &[u8]) -> Option<bool> {
    let is_fragment = match frame[14] >> 4 {
        4 => u16::from_be_bytes([frame[20], frame[21]]) & 0x3fff != 0,
        _ => false,
    };
    let (protocol, payload) = transport(frame);
    if is_fragment || (protocol == 17 && payload.get(6..8) == Some(&[0, 0])) {
        return None;
    }
    let (source, destination) = addresses(frame);
    let octets = |address| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let length = u32::try_from(payload.len()).ok()?.to_be_bytes();
    let pseudo_header = match protocol {
        6 | 17 | 58 => [
            &octets(source)[..],
            &octets(destination),
            &length,
            &[0, 0, 0, protocol],
        ]
        .concat(),
        1 => Vec::new(),
        // Extension headers, SCTP.
        _ => return None,
    };
    Some(folded(&[&pseudo_header[..], payload].concat()) == 0xffff)
}
