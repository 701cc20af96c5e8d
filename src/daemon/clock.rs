//! The daemon's clock: wall time at the start, carried on by a clock that never goes back.
//!
//! `CLOCK_BOOTTIME` counts suspended time and can't be set, so that a deadline is met after a laptop
//! wakes up and an operator who corrects the date fires no timer. The log's last time is a floor: the
//! order of events is also the order of their times (CORE 20). This is the only place that asks the
//! machine what time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::ids::Timestamp;
use crate::sys::clock::since_boot;

/// The clock of one run of the daemon.
#[derive(Debug)]
pub(super) struct Clock {
    wall_ms: i64,
    boot: Duration,
    /// How far a test has gone ahead.
    #[cfg(test)]
    ahead_ms: std::sync::atomic::AtomicU64,
}

impl Clock {
    /// Starts at the machine's wall time, but never below `floor`, the time of the last event.
    #[must_use]
    pub(super) fn start(floor: Timestamp) -> Clock {
        // From the later of the two on: time that only stood at the floor would fire no deadline
        // until the machine's date has caught up.
        Clock::of(wall_ms().max(floor.0), since_boot())
    }

    fn of(wall_ms: i64, boot: Duration) -> Clock {
        Clock {
            wall_ms,
            boot,
            #[cfg(test)]
            ahead_ms: std::sync::atomic::AtomicU64::new(0),
        }
    }

    /// The time now.
    #[must_use]
    #[cfg(not(test))]
    pub(super) fn now(&self) -> Timestamp {
        self.at(since_boot())
    }

    /// The time now, as far as a test has let it pass.
    #[cfg(test)]
    pub(super) fn now(&self) -> Timestamp {
        self.at(since_boot()).plus_ms(self.ahead_ms.load(std::sync::atomic::Ordering::Relaxed))
    }

    /// Lets time pass.
    #[cfg(test)]
    pub(super) fn pass(&self, ms: u64) {
        self.ahead_ms.fetch_add(ms, std::sync::atomic::Ordering::Relaxed);
    }

    fn at(&self, since_boot: Duration) -> Timestamp {
        let passed = i64::try_from(since_boot.saturating_sub(self.boot).as_millis());
        Timestamp(self.wall_ms.saturating_add(passed.unwrap_or(i64::MAX)))
    }

    /// A point in time as a timer wants it: time since boot. The time now for what has passed.
    pub(super) fn since_boot_at(&self, at: Timestamp) -> Duration {
        self.boot + Duration::from_millis(at.since_ms(Timestamp(self.wall_ms)))
    }
}

/// Milliseconds since 1970, as the machine has it.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
fn wall_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_falls_below_the_last_event() {
        let future = Timestamp(wall_ms() + 3_600_000);
        assert!(Clock::start(future).now() >= future);
        assert!(Clock::start(Timestamp(0)).now() < future);
    }

    #[test]
    fn time_also_passes_where_the_last_event_lies_in_the_future() {
        let future = Timestamp(wall_ms() + 3_600_000);
        let clock = Clock::start(future);
        let later = clock.at(clock.boot + Duration::from_secs(60));
        assert_eq!(later, future.plus_ms(60_000));
    }

    #[test]
    fn a_timer_that_is_set_to_a_time_expires_when_it_is_that_time() {
        let clock = Clock::of(1_000, Duration::from_micros(50_000_999));
        for at in [1_000, 1_001, 61_000] {
            let at = Timestamp(at);
            assert_eq!(clock.at(clock.since_boot_at(at)), at);
            assert!(clock.at(clock.since_boot_at(at) - Duration::from_nanos(1)) < at.plus_ms(1));
        }
        assert!(clock.since_boot_at(Timestamp(0)) <= clock.boot, "what has passed is due at once");
    }

    #[test]
    fn time_passes_as_the_boot_clock_does() {
        let clock = Clock::of(1_000, Duration::from_secs(50));
        assert_eq!(clock.at(Duration::from_millis(50_250)), Timestamp(1_250));
        assert_eq!(clock.at(Duration::from_secs(1)), Timestamp(1_000));
    }
}
