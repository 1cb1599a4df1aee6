//! How many flows there are, where not all are looked at.
//!
//! A million flows take seconds to count, so that a thread does it, and seldom.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::super::instance::Selector;

/// How long a count stands.
const GOOD_FOR: Duration = Duration::from_secs(15);

/// The last count, and the next one. A thread that still counts when this is dropped is left to itself.
#[derive(Default)]
pub struct Count {
    last: Option<usize>,
    started: Option<Instant>,
    thread: Option<JoinHandle<Option<usize>>>,
}

impl Count {
    /// The last count, if there is one. Starts the next one when it is time.
    pub fn last(&mut self, selector: &Selector) -> Option<usize> {
        if let Some(thread) = self.thread.take_if(|thread| thread.is_finished()) {
            self.last = thread.join().ok().flatten();
        }
        let is_old = |started: Instant| started.elapsed() > GOOD_FOR;
        if self.thread.is_none() && self.started.is_none_or(is_old) {
            self.started = Some(Instant::now());
            let selector = selector.clone();
            let count = move || selector.find().ok()?.maps.count_flows().ok();
            self.thread = Some(thread::spawn(count));
        }
        self.last
    }
}
