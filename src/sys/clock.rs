//! Time for the shims, which have no daemon to ask.
#![expect(unsafe_code, reason = "clock_gettime")]

use std::time::Duration;

/// Time since boot, suspend included (`CLOCK_BOOTTIME`).
#[must_use]
pub fn since_boot() -> Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is valid for writing; with this clock the call can't fail on Linux 2.6.39 and up.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut now) };
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}
