//! The number of all flows, if a snapshot has only some of them.
//!
//! Counting a million flows takes seconds, so a thread does it, and rarely.

use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::super::instance::Selector;

/// How long a count is used.
const GOOD_FOR: Duration = Duration::from_secs(15);

/// The last count, and the thread that makes the next one. A thread outlives this if it is still counting.
#[derive(Default)]
pub struct Count {
    last: Option<usize>,
    started: Option<Instant>,
    thread: Option<JoinHandle<Option<usize>>>,
}

impl Count {
    /// Returns the last count, if there is one, and starts the next one when it is due.
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
