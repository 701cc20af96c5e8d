//! Kills every process below one, also one that forks while it is being killed.
//!
//! First everything is stopped, newest findings too, until a pass finds no process that wasn't
//! stopped before; a stopped process can't fork. Then all are killed. What slipped through (a
//! process outside of the tree's view may have continued another) is found by the next call: the
//! caller repeats until wait says ECHILD.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsFd;

use super::message::Process;
use crate::sys::process::{self, Pid};
use crate::sys::procfs;

/// What one pass did.
#[derive(Debug, Default)]
pub(super) struct Pass {
    /// Processes that got SIGKILL.
    pub(super) killed: Vec<Process>,
    /// Processes that may not be signalled: they run as another user.
    pub(super) refused: Vec<Pid>,
    /// Processes that had ended and were not reaped.
    pub(super) dead: BTreeSet<Pid>,
}

/// Looks at the tree in one pass at most: what goes on appearing is for the next pass, after a reap.
const MOST_LOOKS: u32 = 64;

/// Stops, then kills, all that lives below `root`, except what `skip` names and what is below that.
pub(super) fn kill_below(root: Pid, skip: &dyn Fn(Pid) -> bool) -> io::Result<Pass> {
    let mut pass = Pass::default();
    let mut stopped = BTreeMap::<Pid, u64>::new();
    for _ in 0..MOST_LOOKS {
        let mut fresh = false;
        pass.dead.clear();
        for stat in procfs::descendants(root, skip)? {
            if matches!(stat.state, b'Z' | b'X') {
                pass.dead.insert(stat.pid);
                continue;
            }
            if stopped.get(&stat.pid) == Some(&stat.start) || pass.refused.contains(&stat.pid) {
                continue;
            }
            let target = Process { pid: stat.pid, start: stat.start };
            match signal(target, libc::SIGSTOP) {
                Ok(()) => {
                    fresh = true;
                    stopped.insert(stat.pid, stat.start);
                }
                Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
                    pass.refused.push(stat.pid);
                }
                // It ended in between.
                Err(_) => {}
            }
        }
        if !fresh {
            break;
        }
    }
    for (pid, start) in stopped {
        let target = Process { pid, start };
        if signal(target, libc::SIGKILL).is_ok() {
            pass.killed.push(target);
        }
    }
    Ok(pass)
}

/// Signals exactly this process: the pidfd pins it, the start time tells that it is the one meant.
fn signal(target: Process, number: i32) -> io::Result<()> {
    let pidfd = process::pidfd(target.pid)?;
    if procfs::stat(target.pid)?.start != target.start {
        return Err(io::ErrorKind::NotFound.into());
    }
    process::signal(pidfd.as_fd(), number)
}
