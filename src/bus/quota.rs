//! What a connection's owner may use: requests per second, bytes that wait, connections. Every queued
//! byte is charged here, to the agent (or the operators together) whose connection it waits on.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::core::head::Caller;
use crate::ids::Timestamp;

/// Bytes of requests that an owner may have on their way to their answers.
pub(super) const INBOUND_BYTES: usize = 4 << 20;

/// Bytes of half-read lines that an owner may have.
pub(super) const BUFFERED_BYTES: usize = 8 << 20;

/// Bytes of one connection's outgoing queue above which nothing is pushed and nothing is read.
pub(super) const PUSH_BYTES: usize = 256 << 10;

/// Bytes of all outgoing queues of an owner above which nothing is pushed to it.
pub(super) const OWNER_PUSH_BYTES: usize = 8 << 20;

/// Bytes of all outgoing queues of an owner above which a connection that gets more is ended.
pub(super) const OWNER_BYTES: usize = 96 << 20;

/// The period of most rates.
pub(super) const SECOND: Duration = Duration::from_secs(1);

/// A bucket of tokens: `rate` in each `period`, at most that many at once.
#[derive(Debug)]
pub(super) struct Bucket {
    rate: u32,
    period: Duration,
    tokens: f64,
    at: Instant,
}

impl Bucket {
    pub(super) fn new(rate: u32, period: Duration, now: Instant) -> Self {
        Bucket { rate, period, tokens: f64::from(rate), at: now }
    }

    pub(super) fn set_rate(&mut self, rate: u32) {
        self.rate = rate;
    }

    /// Takes a token, or says how long until there is one.
    pub(super) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let full = f64::from(self.rate.max(1));
        let rate = full / self.period.as_secs_f64();
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        self.at = now;
        self.tokens = (self.tokens + elapsed * rate).min(full);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        Err(Duration::from_secs_f64((1.0 - self.tokens) / rate))
    }
}

/// An agent, or the operators together, as the bus accounts for them.
#[derive(Debug)]
pub(super) struct Owner {
    pub(super) who: Caller,
    /// Permits are bytes of requests.
    pub(super) inbound: Arc<Semaphore>,
    /// Bytes of half-read lines.
    pub(super) buffered: AtomicUsize,
    /// Bytes in outgoing queues.
    pub(super) queued: AtomicUsize,
    /// Open connections.
    pub(super) connections: AtomicUsize,
    /// How many may be.
    pub(super) connection_limit: AtomicU32,
    /// When the last request came; 0 for never.
    heard: AtomicI64,
    /// Requests; none for operators, who are not limited.
    bucket: Option<Mutex<Bucket>>,
}

impl Owner {
    pub(super) fn new(who: Caller, rate: Option<u32>, connections: u32) -> Arc<Self> {
        Arc::new(Owner {
            who,
            inbound: Arc::new(Semaphore::new(INBOUND_BYTES)),
            buffered: AtomicUsize::new(0),
            queued: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            connection_limit: AtomicU32::new(connections),
            heard: AtomicI64::new(0),
            bucket: rate.map(|rate| Mutex::new(Bucket::new(rate, SECOND, Instant::now()))),
        })
    }

    pub(super) fn set_limits(&self, rate: u32, connections: u32) {
        self.connection_limit.store(connections, Ordering::Relaxed);
        if let Some(bucket) = &self.bucket {
            bucket.lock().unwrap_or_else(PoisonError::into_inner).set_rate(rate);
        }
    }

    pub(super) fn hears(&self, at: Timestamp) {
        self.heard.store(at.0, Ordering::Relaxed);
    }

    pub(super) fn heard(&self) -> Option<Timestamp> {
        let at = self.heard.load(Ordering::Relaxed);
        (at != 0).then_some(Timestamp(at))
    }

    /// Takes the right to one request, or says how long until there is one.
    pub(super) fn take_request(&self) -> Result<(), Duration> {
        let Some(bucket) = &self.bucket else { return Ok(()) };
        bucket.lock().unwrap_or_else(PoisonError::into_inner).take(Instant::now())
    }

    pub(super) fn may_push(&self) -> bool {
        self.queued.load(Ordering::Relaxed) < OWNER_PUSH_BYTES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_its_rate_and_no_more() {
        let mut bucket = Bucket::new(10, SECOND, Instant::now());
        for _ in 0..10 {
            assert_eq!(bucket.take(Instant::now()), Ok(()));
        }
        let wait = bucket.take(Instant::now()).unwrap_err();
        assert!((wait.as_secs_f64() - 0.1).abs() < 0.001, "{wait:?}");
        tokio::time::advance(Duration::from_millis(101)).await;
        assert_eq!(bucket.take(Instant::now()), Ok(()));
        tokio::time::advance(Duration::from_secs(3600)).await;
        let taken = (0..100).filter(|_| bucket.take(Instant::now()).is_ok()).count();
        assert_eq!(taken, 10, "a long silence saves up one second");
    }
}
