//! The invariants that hold after every packet.

use std::net::IpAddr;

use egress_common::{Address, Outcome, Side, Verdict, sctp::chunk};
use egress_userspace::dataplane::FamilyMaps;

use crate::{
    bench::{Bench, DROP, FORWARD, PASS, folded},
    frames::{addresses, endpoints},
    steps::{Seen, family},
};

/// Sends packets and checks the invariants after each.
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

    /// The packets forwarded so far.
    pub fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// Sends a frame.
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

    /// Checks that only the reserved address leaves `net1`, and that packets enter the cluster only for hosts that have
    /// asked for them.
    fn check_forwarded(&mut self, side: Side, arrived: &[u8], left: Vec<u8>) {
        let (source, destination) = addresses(&left);
        let (_, sent_to) = addresses(arrived);
        let family = family(source);
        match side {
            Side::Cluster => {
                assert_eq!(
                    source, family.reserved,
                    "the source of a packet that leaves net1"
                );
                assert_eq!(sent_to, family.router, "the packet was not for the router");
            }
            Side::Egress => {
                assert_eq!(
                    source, family.router,
                    "the source of a packet that enters the cluster"
                );
                assert_eq!(
                    sent_to, family.reserved,
                    "the packet was not for the reserved address"
                );
                let asked = self.seen.iter().any(|seen| {
                    seen.side == Side::Cluster && addresses(&seen.frames[0]).0 == destination
                });
                assert!(asked, "{destination} has not asked for it");
            }
        }
        assert_eq!(left.len(), arrived.len());
        assert_eq!(
            header_is_right(arrived),
            header_is_right(&left),
            "whether the IP header's checksum is right"
        );
        if let (Some(before), Some(after)) =
            (transport_is_right(arrived), transport_is_right(&left))
        {
            assert_eq!(before, after, "whether the transport's checksum is right");
        }
        // A forwarded ICMP error is counted by no rule.
        if let Ok((from, to)) = endpoints(&left) {
            self.forwarded += u64::from(!is_later_fragment(&left));
            self.seen.push(Seen {
                side,
                frames: [arrived.to_vec(), left],
                ends: [from, to],
            });
        }
    }

    /// Checks that every flow has both of its entries, and deletes them, so that each sequence begins with an empty
    /// table.
    pub fn finish(self) {
        let flows = self.bench.flows().len();
        assert_eq!(
            self.bench.entries(),
            2 * flows,
            "a flow lacks one of its entries"
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
        maps.flows.remove(&key).expect("the entry exists");
    }
}

fn counts(bench: &Bench) -> Vec<u64> {
    let count = |outcome: &Outcome| bench.count(*outcome).expect("the map is there");
    Outcome::ALL.iter().map(count).collect()
}

/// The packets that all rules have counted.
fn packets_by_rule(bench: &Bench) -> u64 {
    let rules = bench.dataplane.maps.rules().expect("the map is there");
    rules
        .iter()
        .map(|rule| rule.original.packets + rule.reply.packets)
        .sum()
}

/// Checks that an error about a dropped packet goes to its sender, from the address that it was sent to.
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

/// Whether the IPv4 header's checksum is right. IPv6 has none.
fn header_is_right(frame: &[u8]) -> bool {
    frame[14] >> 4 != 4 || folded(&frame[14..14 + header_len(frame)]) == 0xffff
}

fn header_len(frame: &[u8]) -> usize {
    usize::from(frame[14] & 0x0f) * 4
}

/// The protocol number and payload of an IP packet without extension headers.
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

/// Whether the transport's Internet checksum is right, for whole packets that have one.
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
        // SCTP, or extension headers.
        _ => return None,
    };
    Some(folded(&[&pseudo_header[..], payload].concat()) == 0xffff)
}
