//! Malformed and malicious packets.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use egress_common::{Outcome, Side, sctp::chunk};
use egress_tests::skip_unless_lab_works;
use etherparse::{EtherType, IpNumber};

use crate::{
    bench::{Bench, DROP, FAMILIES, FORWARD, Family, PASS, V4},
    frames::{Message, addresses, endpoints, icmp, udp},
};

/// The shortest frame that the kernel accepts for a test run: it requires a whole IP header.
fn shortest(frame: &[u8]) -> usize {
    if frame[12..14] == EtherType::IPV6.0.to_be_bytes() {
        14 + 40
    } else {
        14 + 20
    }
}

#[test]
fn a_frame_cut_short_is_never_translated() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::with_fallback()?;
    for family in &FAMILIES {
        for (request, answer) in family.openings() {
            let request = if family.client.is_ipv4() {
                request.ip_options(&[1; 4])
            } else {
                request
            };
            let (reserved, server) = endpoints(&bench.forward(Side::Cluster, &request.bytes())?)?;
            let answer = request
                .between(reserved, server)
                .answer(answer, b"an answer");
            bench.forward(Side::Egress, &answer.bytes())?;
            for (side, frame) in [(Side::Cluster, request), (Side::Egress, answer)] {
                let bytes = frame.bytes();
                for len in shortest(&bytes)..bytes.len() {
                    bench
                        .refuse(side, &bytes[..len], Outcome::Truncated)
                        .with_context(|| format!("cut to {len}: {frame:?}"))?;
                }
            }
        }
    }
    Ok(())
}

#[test]
fn padding_behind_a_short_packet_is_no_part_of_it() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    // An IP packet without room for a UDP header, in a frame that has room.
    let datagram = udp((V4.client, 2000), (V4.router, 80), b"");
    let mut frame = datagram.bytes();
    frame[16..18].copy_from_slice(&20_u16.to_be_bytes());
    let ran = bench.run(Side::Cluster, &frame)?;
    ensure!(ran.verdict == DROP && ran.frame == frame, "{ran:?}");
    // A complete datagram in a padded frame.
    let mut frame = datagram.bytes();
    frame.extend([0xa5; 18]);
    let out = bench.forward(Side::Cluster, &frame)?;
    ensure!(out[42..] == [0xa5; 18]);
    Ok(())
}

/// A small pseudo-random generator, so that failures can be reproduced (xorshift64*, Vigna 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("below a usize")
    }
}

/// How many frames the random test sends; `EGRESS_TEST_FRAMES` overrides it.
const FRAMES: u64 = 30_000;

fn frames_to_send() -> Result<u64> {
    match std::env::var("EGRESS_TEST_FRAMES") {
        Ok(number) => number
            .parse()
            .with_context(|| format!("EGRESS_TEST_FRAMES: {number:?} is not a number")),
        Err(_) => Ok(FRAMES),
    }
}

/// Opens flows and returns frames of them: each protocol, both directions, with an error about each.
fn seeds(bench: &mut Bench, family: &Family) -> Result<Vec<(Side, Vec<u8>)>> {
    let unreachable = Message {
        kind: if family.client.is_ipv4() { 3 } else { 1 },
        code: 3,
        rest: [0; 4],
    };
    let mut seeds = Vec::new();
    for (request, answer) in family.openings() {
        let request = if family.client.is_ipv4() {
            request.ip_options(&[1; 8])
        } else {
            request.extensions(&[(IpNumber::IPV6_DESTINATION_OPTIONS, &[0, 1, 4, 0, 0, 0, 0])])
        };
        let out = bench.forward(Side::Cluster, &request.bytes())?;
        let (reserved, server) = endpoints(&out)?;
        let answer = request
            .between(reserved, server)
            .answer(answer, b"an answer");
        let back = bench.forward(Side::Egress, &answer.bytes())?;
        let error = |to, about: &[u8]| icmp(family.outsider, to, unreachable, &about[14..]).bytes();
        seeds.extend([
            (Side::Cluster, request.bytes()),
            (Side::Egress, answer.bytes()),
            (Side::Egress, error(family.reserved, &out)),
            (Side::Cluster, error(family.router, &back)),
            // Frames that are valid on the other side only.
            (Side::Egress, request.bytes()),
            (Side::Cluster, answer.bytes()),
            (Side::Egress, error(family.router, &back)),
        ]);
    }
    Ok(seeds)
}

/// Whether a frame tells the sender of another frame that it was dropped: an ICMP error or an SCTP ABORT from the
/// address that the other frame was sent to.
fn is_refusal(frame: &[u8], of: &[u8]) -> bool {
    let (source, destination) = addresses(frame);
    let (protocol, payload) = match source {
        IpAddr::V4(_) => (frame[23], 34),
        IpAddr::V6(_) => (frame[20], 54),
    };
    addresses(of) == (destination, source)
        && match protocol {
            1 => matches!(frame[payload], 3 | 11),
            58 => matches!(frame[payload], 2 | 3),
            132 => frame[payload + 12] == chunk::ABORT,
            _ => false,
        }
}

#[test]
fn whatever_arrives_nothing_untranslated_leaves_and_nothing_unasked_enters() -> Result<()> {
    skip_unless_lab_works!();
    let frames = frames_to_send()?;
    let mut bench = Bench::with_fallback()?;
    let mut random = Random(0x5eed);
    let mut seeds_of_both = Vec::new();
    for family in &FAMILIES {
        seeds_of_both.extend(seeds(&mut bench, family)?);
    }
    let mut forwarded = [0; 2];
    for round in 0..frames {
        let (side, mut frame) = seeds_of_both[random.below(seeds_of_both.len())].clone();
        for _ in 0..random.below(4) {
            let at = 12 + random.below(frame.len() - 12);
            #[expect(clippy::cast_possible_truncation, reason = "any byte will do")]
            let byte = random.next() as u8;
            frame[at] = byte;
        }
        // Half of the frames stay whole: few truncated ones are forwarded.
        if random.below(2) == 0 {
            let shortest = shortest(&frame);
            frame.truncate(shortest + random.below(frame.len() - shortest + 1));
        }
        let ran = bench
            .run(side, &frame)
            .with_context(|| format!("round {round}"))?;
        forwarded[side as usize] += u64::from(ran.verdict == FORWARD);
        match (ran.verdict, side) {
            // The router's own error, back to the sender.
            (FORWARD, _) if is_refusal(&ran.frame, &frame) => {}
            (FORWARD, Side::Cluster) => {
                let (source, _) = addresses(&ran.frame);
                ensure!(
                    FAMILIES.iter().any(|family| source == family.reserved),
                    "round {round}: {source} leaves net1"
                );
            }
            (FORWARD, Side::Egress) => {
                let (_, asked) = addresses(&frame);
                let (source, destination) = addresses(&ran.frame);
                ensure!(
                    FAMILIES
                        .iter()
                        .any(|family| asked == family.reserved && source == family.router),
                    "round {round}: {source} → {destination} enters, sent to {asked}: {frame:02x?}"
                );
            }
            (PASS | DROP, _) => ensure!(
                ran.frame == frame,
                "round {round}: changed, but not forwarded: {frame:02x?}, {:02x?}",
                ran.frame
            ),
            (verdict, _) => anyhow::bail!("round {round}: verdict {verdict}"),
        }
    }
    // Otherwise the test would have covered little.
    ensure!(
        forwarded.iter().all(|count| *count >= frames / 50),
        "{forwarded:?} of {frames} were forwarded"
    );
    ensure!(
        bench.entries() == 2 * bench.flows().len(),
        "a flow lacks one of its entries"
    );
    Ok(())
}
