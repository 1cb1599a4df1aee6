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

/// The last count, and the next one. A thread that counts when the program ends is ended with it.
pub struct Count {
    selector: Selector,
    last: Option<usize>,
    started: Option<Instant>,
    thread: Option<JoinHandle<Option<usize>>>,
}

impl Count {
    /// None yet.
    pub fn new(selector: Selector) -> Self {
        Self {
            selector,
            last: None,
            started: None,
            thread: None,
        }
    }

    /// The last count, if there is one. Starts the next one when it is time.
    pub fn last(&mut self) -> Option<usize> {
        if let Some(thread) = self.thread.take_if(|thread| thread.is_finished()) {
            self.last = thread.join().ok().flatten();
        }
        let is_old = self
            .started
            .is_none_or(|started| started.elapsed() > GOOD_FOR);
        if self.thread.is_none() && is_old {
            self.started = Some(Instant::now());
            let selector = self.selector.clone();
            self.thread = Some(thread::spawn(move || {
                selector.find().ok()?.maps.count_flows().ok()
            }));
        }
        self.last
    }

    /// Forgets it: another router has other flows.
    pub fn forget(&mut self) {
        // A thread that still counts the router before is left to itself.
        *self = Self::new(self.selector.clone());
    }
}
