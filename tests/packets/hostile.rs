//! Packets that nobody in their right mind sends.

use anyhow::{Context as _, Result, ensure};
use egress_common::Side;
use egress_tests::skip_unless_lab_works;

use crate::{
    bench::{Bench, CLIENT, DROP, FORWARD, PASS, RESERVED, ROUTER, WEB},
    frames::{addresses, tcp, udp},
};

#[test]
fn a_frame_cut_short_is_never_translated() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    let segment = tcp((CLIENT, 2000), (ROUTER, 8080), "S")
        .ip_options(&[1; 4])
        .payload(b"payload")
        .bytes();
    let answer = tcp((WEB, 80), (RESERVED, 2000), "SA")
        .payload(b"payload")
        .bytes();
    bench.forward(Side::Cluster, &segment)?;
    bench.forward(Side::Egress, &answer)?;
    for (side, frame) in [(Side::Cluster, &segment), (Side::Egress, &answer)] {
        // Shorter ones the kernel refuses to test: 14 bytes of Ethernet and 20 of IPv4.
        for len in 34..frame.len() {
            let ran = bench
                .run(side, &frame[..len])
                .with_context(|| format!("cut to {len}"))?;
            ensure!(
                ran.verdict == DROP && ran.frame == frame[..len],
                "cut to {len}: {ran:?}"
            );
        }
    }
    Ok(())
}

#[test]
fn padding_behind_a_short_packet_is_no_part_of_it() -> Result<()> {
    skip_unless_lab_works!();
    let mut bench = Bench::new()?;
    // An IP packet without any room for a UDP header, in a frame that is long enough for one.
    let mut frame = udp((CLIENT, 2000), (ROUTER, 80), b"").bytes();
    frame[16..18].copy_from_slice(&20_u16.to_be_bytes());
    let ran = bench.run(Side::Cluster, &frame)?;
    ensure!(ran.verdict == DROP && ran.frame == frame, "{ran:?}");
    // A whole one in a padded frame.
    let mut frame = udp((CLIENT, 2000), (ROUTER, 80), b"").bytes();
    frame.extend([0xa5; 18]);
    let out = bench.forward(Side::Cluster, &frame)?;
    ensure!(out[42..] == [0xa5; 18]);
    Ok(())
}

/// A small generator, so that a failure can be repeated (xorshift64*, Vigna 2016).
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

#[test]
fn whatever_arrives_nothing_untranslated_leaves_and_nothing_unasked_enters() -> Result<()> {
    skip_unless_lab_works!();
    const FRAMES: u64 = 30_000;
    let mut bench = Bench::new()?;
    let mut random = Random(0x5eed);
    let seeds = [
        (
            Side::Cluster,
            tcp((CLIENT, 2000), (ROUTER, 8080), "S")
                .payload(b"payload")
                .bytes(),
        ),
        (
            Side::Cluster,
            udp((CLIENT, 2000), (ROUTER, 80), b"payload")
                .ip_options(&[1; 8])
                .bytes(),
        ),
        (
            Side::Egress,
            tcp((WEB, 80), (RESERVED, 2000), "SA")
                .payload(b"payload")
                .bytes(),
        ),
        (
            Side::Egress,
            tcp((CLIENT, 2000), (ROUTER, 8080), "A").bytes(),
        ),
    ];
    for round in 0..FRAMES {
        let (side, mut frame) = seeds[random.below(seeds.len())].clone();
        for _ in 0..random.below(4) {
            let at = 12 + random.below(frame.len() - 12);
            #[expect(clippy::cast_possible_truncation, reason = "any byte will do")]
            let byte = random.next() as u8;
            frame[at] = byte;
        }
        frame.truncate(34 + random.below(frame.len() - 33));
        let ran = bench
            .run(side, &frame)
            .with_context(|| format!("round {round}"))?;
        match (ran.verdict, side) {
            (FORWARD, Side::Cluster) => {
                let (source, _) = addresses(&ran.frame);
                ensure!(source == RESERVED, "round {round}: {source} leaves net1");
            }
            (FORWARD, Side::Egress) => {
                let (source, destination) = addresses(&ran.frame);
                let asked = addresses(&frame).1 == RESERVED;
                ensure!(
                    asked && source == ROUTER,
                    "round {round}: {source} → {destination} enters"
                );
            }
            (PASS | DROP, _) => ensure!(
                ran.frame == frame,
                "round {round}: changed, but not forwarded"
            ),
            (verdict, _) => anyhow::bail!("round {round}: verdict {verdict}"),
        }
    }
    ensure!(
        bench.entries() == 2 * bench.flows().len(),
        "an entry is without the other"
    );
    Ok(())
}
