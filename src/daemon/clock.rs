//! The daemon's clock: wall time at the start, carried on by a clock that never goes back.
//!
//! `CLOCK_BOOTTIME` counts suspended time and can't be set, so that a deadline is met after a laptop
//! wakes up and an operator who corrects the date fires no timer. The log's last time is a floor: the
//! order of events is also the order of their times (CORE 20). This is the only place that asks the
//! machine what time it is.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use crate::ids::Timestamp;
use crate::sys::clock::since_boot;

/// The clock of one run of the daemon.
#[derive(Debug)]
pub(super) struct Clock {
    wall_ms: i64,
    boot: Duration,
}

impl Clock {
    /// Starts at the machine's wall time, but never below `floor`, the time of the last event.
    #[must_use]
    pub(super) fn start(floor: Timestamp) -> Clock {
        // From the later of the two on: time that only stood at the floor would fire no deadline
        // until the machine's date has caught up.
        Clock { wall_ms: wall_ms().max(floor.0), boot: since_boot() }
    }

    /// The time now.
    #[must_use]
    pub(super) fn now(&self) -> Timestamp {
        self.at(since_boot())
    }

    fn at(&self, since_boot: Duration) -> Timestamp {
        let passed = i64::try_from(since_boot.saturating_sub(self.boot).as_millis());
        Timestamp(self.wall_ms.saturating_add(passed.unwrap_or(i64::MAX)))
    }

    /// A point in time as the runtime's timers want it. The runtime's clock stops while the machine is
    /// suspended: a timer may be late by that, and the loop, whatever wakes it, looks at this clock.
    pub(super) fn instant(&self, at: Timestamp) -> Instant {
        Instant::now() + Duration::from_millis(at.since_ms(self.now()))
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
    fn time_passes_as_the_boot_clock_does() {
        let clock = Clock { wall_ms: 1_000, boot: Duration::from_secs(50) };
        assert_eq!(clock.at(Duration::from_millis(50_250)), Timestamp(1_250));
        assert_eq!(clock.at(Duration::from_secs(1)), Timestamp(1_000));
    }
}
