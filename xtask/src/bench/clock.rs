//! Time for measuring: nanoseconds of the monotonic clock, and the processor time of a process.

use std::io;
use std::time::Instant;

/// A moment.
#[expect(clippy::disallowed_methods, reason = "a bench measures; this is its only clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Nanoseconds since `origin`.
pub(crate) fn nanos(origin: Instant) -> u64 {
    u64::try_from(now().duration_since(origin).as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds that all threads of a process have run (`/proc/PID/task/TID/schedstat`).
pub(crate) fn processor_time(pid: u32) -> io::Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let text = std::fs::read_to_string(task?.path().join("schedstat")).unwrap_or_default();
        sum += text.split(' ').next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(sum)
}

/// A line of `/proc/PID/NAME` as a number, such as `Pss:` of `smaps_rollup`, in kB.
pub(crate) fn proc_kb(pid: u32, name: &str, key: &str) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{name}"))?;
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .ok_or_else(|| io::Error::other(format!("no {key} in /proc/{pid}/{name}")))
}
