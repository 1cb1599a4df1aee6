//! Sequences of packets through the kernel half (`BPF_PROG_TEST_RUN`). The invariants are checked after each packet.
//!
//! The engine sees no coverage of programs in the kernel; the harness guides it. Needs root.

#![no_main]

#[path = "../../../tests/packets/bench.rs"]
#[expect(dead_code, reason = "the packet tests use the rest")]
mod bench;
#[path = "../../../tests/packets/blank.rs"]
mod blank;
#[path = "../../../tests/packets/frames.rs"]
#[expect(dead_code, reason = "the packet tests use the rest")]
mod frames;
mod invariants;
#[path = "../../../tests/packets/pool.rs"]
mod pool;
mod steps;

use std::sync::{Mutex, OnceLock, PoisonError};

use libfuzzer_sys::fuzz_target;

use crate::{bench::Bench, invariants::Observer, steps::Step};

/// The longest sequence.
const STEPS: usize = 24;

fuzz_target!(|steps: Vec<Step>| {
    static BENCH: OnceLock<Mutex<Bench>> = OnceLock::new();
    let bench = BENCH.get_or_init(|| {
        let bench = Bench::with_fallback().expect("the kernel half can be loaded (as root)");
        Mutex::new(bench)
    });
    let mut bench = bench.lock().unwrap_or_else(PoisonError::into_inner);
    let mut observer = Observer::new(&mut bench);
    for step in steps.into_iter().take(STEPS) {
        if let Some((side, frame)) = step.frame(observer.seen()) {
            observer.send(side, &frame);
        }
    }
    observer.finish();
});
