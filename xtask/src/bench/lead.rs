//! How far a publisher may be ahead of its slowest reader. What is not logged is dropped for readers
//! that are too slow; a measurement of deliveries must not outrun them.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Messages: two windows of the publisher.
const LEAD: usize = 512;
const PATIENCE: Duration = Duration::from_secs(60);

/// What each reader has seen.
pub(crate) struct Lead {
    seen: Vec<AtomicUsize>,
    is_waiting: AtomicBool,
    gate: Mutex<()>,
    moved: Condvar,
}

impl Lead {
    pub(crate) fn new(readers: usize) -> Lead {
        Lead {
            seen: (0..readers).map(|_| AtomicUsize::new(0)).collect(),
            is_waiting: AtomicBool::new(false),
            gate: Mutex::new(()),
            moved: Condvar::new(),
        }
    }

    /// A reader has seen so many.
    pub(crate) fn saw(&self, reader: usize, count: usize) {
        if let Some(seen) = self.seen.get(reader) {
            seen.store(count, Ordering::SeqCst);
        }
        if self.is_waiting.load(Ordering::SeqCst) {
            let _gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
            self.moved.notify_one();
        }
    }

    /// How many messages may be sent by now.
    pub(crate) fn bound(&self) -> usize {
        let slowest = self.seen.iter().map(|seen| seen.load(Ordering::SeqCst)).min();
        slowest.map_or(usize::MAX, |seen| seen + LEAD)
    }

    /// Waits until another than the first `sent` messages may be sent.
    pub(crate) fn wait(&self, sent: usize) -> io::Result<usize> {
        let mut gate = self.gate.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            self.is_waiting.store(true, Ordering::SeqCst);
            let bound = self.bound();
            if sent < bound {
                self.is_waiting.store(false, Ordering::SeqCst);
                return Ok(bound);
            }
            let waited = self.moved.wait_timeout(gate, PATIENCE);
            let (held, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            if timeout.timed_out() {
                return Err(io::Error::other("a reader has not got all messages"));
            }
            gate = held;
        }
    }
}
