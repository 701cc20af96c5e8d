//! One timer that also runs while the machine is suspended (timerfd_create(2), `CLOCK_BOOTTIME`).
//!
//! The runtime's own timers use `CLOCK_MONOTONIC`, which stands still meanwhile: after a night with the
//! lid closed a deadline would be late by that night.
#![expect(unsafe_code, reason = "tokio's registration of a descriptor is an unsafe function")]

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

struct Instance(TimerFd);

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

/// A timer that is set to one point in time, or to none.
pub struct Timer {
    fd: AsyncFd<Instance>,
    set: Cell<Option<Duration>>,
}

impl Timer {
    /// Set to none. Needs a runtime.
    ///
    /// # Errors
    /// timerfd_create(2), or the runtime's registration.
    pub fn new() -> io::Result<Timer> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = Instance(TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?);
        // SAFETY: the descriptor is owned by the instance, which moves into the AsyncFd and is only
        // ever lent out by shared reference: it stays open, and the same one, until both are dropped.
        let fd = unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE) }?;
        Ok(Timer { fd, set: Cell::new(None) })
    }

    /// Sets it to a time since boot (see [`since_boot`](super::clock::since_boot)), or to none. Costs a
    /// system call only where that is another time than before.
    ///
    /// # Errors
    /// timerfd_settime(2).
    pub fn set(&self, at: Option<Duration>) -> io::Result<()> {
        if self.set.get() == at {
            return Ok(());
        }
        let timer = &self.fd.get_ref().0;
        match at {
            // Zero would be none.
            Some(at) => timer.set(
                Expiration::OneShot(TimeSpec::from_duration(at.max(Duration::from_nanos(1)))),
                TimerSetTimeFlags::TFD_TIMER_ABSTIME,
            )?,
            None => timer.unset()?,
        }
        self.set.set(at);
        Ok(())
    }

    /// Waits for that time; with none, for ever. Cancel-safe. Set to none afterwards.
    ///
    /// # Errors
    /// read(2), or the runtime is ending.
    pub async fn expired(&self) -> io::Result<()> {
        loop {
            let mut ready = self.fd.readable().await?;
            let read = ready.try_io(|timer| {
                let mut expirations = [0; 8];
                nix::unistd::read(timer.get_ref().0.as_fd(), &mut expirations)?;
                Ok(())
            });
            // Set again meanwhile: then nothing has expired, and that is said by the next edge.
            if let Ok(outcome) = read {
                self.set.set(None);
                return outcome;
            }
        }
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.get_ref().0.as_fd()
    }
}

impl std::fmt::Debug for Timer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Timer").field("set", &self.set.get()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock::since_boot;

    const DEADLINE: Duration = Duration::from_secs(30);

    async fn expires(timer: &Timer) {
        tokio::time::timeout(DEADLINE, timer.expired()).await.unwrap().unwrap();
    }

    async fn is_still(timer: &Timer) -> bool {
        tokio::select! {
            biased;
            _ = timer.expired() => false,
            // The runtime has looked for readiness by then.
            () = tokio::task::yield_now() => true,
        }
    }

    /// What can be shown without suspending the machine: it is this clock (see timerfd_create(2)).
    #[tokio::test]
    async fn it_runs_by_the_clock_that_counts_suspended_time() {
        let timer = Timer::new().unwrap();
        let info = format!("/proc/self/fdinfo/{}", timer.as_fd().as_raw_fd());
        let info = std::fs::read_to_string(info).unwrap();
        let clock = format!("clockid: {}", libc::CLOCK_BOOTTIME);
        assert!(info.lines().any(|line| line == clock), "{info}");
    }

    #[tokio::test]
    async fn it_expires_at_its_time_and_once() {
        let timer = Timer::new().unwrap();
        let at = since_boot() + Duration::from_millis(20);
        timer.set(Some(at)).unwrap();
        expires(&timer).await;
        assert!(since_boot() >= at);
        assert!(is_still(&timer).await);
        // A time that has passed is due at once, also the same one again.
        timer.set(Some(at)).unwrap();
        expires(&timer).await;
        timer.set(Some(Duration::ZERO)).unwrap();
        expires(&timer).await;
    }

    #[tokio::test]
    async fn a_time_that_was_taken_back_does_not_come() {
        let timer = Timer::new().unwrap();
        timer.set(Some(Duration::ZERO)).unwrap();
        // It has expired by now, and nobody was told.
        timer.set(None).unwrap();
        assert!(is_still(&timer).await);
        timer.set(Some(since_boot() + Duration::from_secs(3_600))).unwrap();
        assert!(is_still(&timer).await);
        timer.set(Some(since_boot())).unwrap();
        expires(&timer).await;
    }
}
