//! For the daemon, which is the parent of all shims and heir of what a killed shim leaves.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::tree;
use crate::sys::process::{self, End, Pid, Which};
use crate::sys::{clock, procfs};

/// A child of the daemon that has ended: a shim, the launcher, or an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reaped {
    /// Its id, free for use again from now on.
    pub pid: Pid,
    /// How it ended. A shim exits with 0 after its last report.
    pub end: End,
}

/// Why [`sweep`] could not empty the tree.
#[derive(Debug, thiserror::Error)]
pub enum SweepError {
    /// `/proc` can't be read.
    #[error("cannot list processes")]
    List(#[source] io::Error),
    /// Processes that belong to another user now.
    #[error("processes {0:?} run as another user and cannot be killed")]
    Refused(Vec<Pid>),
    /// Killed but still there after 5 s.
    #[error("processes {0:?} have not ended {SWEEP_TIMEOUT:?} after SIGKILL")]
    Lingering(Vec<Pid>),
}

/// How long a [`sweep`] waits for what it killed.
pub(super) const SWEEP_TIMEOUT: Duration = Duration::from_secs(5);

/// Makes this process fit to have shims: orphans of killed shims come to it (and not to init), and
/// nobody traces it. To be called once, before the launcher is spawned.
///
/// # Errors
/// prctl(2).
pub fn become_supervisor() -> io::Result<()> {
    process::become_subreaper()?;
    process::become_undumpable()
}

/// Reaps every child that has ended by now; to be called on SIGCHLD. The daemon has no other
/// children, so nothing else may wait for them.
///
/// # Errors
/// waitid(2), except "no children".
pub fn reap() -> io::Result<Vec<Reaped>> {
    let mut list = Vec::new();
    loop {
        match process::reap(Which::Any) {
            Ok(Some((pid, end))) => list.push(Reaped { pid, end }),
            Ok(None) => return Ok(list),
            Err(error) if error.raw_os_error() == Some(libc::ECHILD) => return Ok(list),
            Err(error) => return Err(error),
        }
    }
}

/// Kills every descendant of this process that is neither in `known` nor below one that is, until
/// none is left, and reaps those that are its children. Returns how many were killed.
///
/// For [`Exit::Lost`](super::Exit): when a shim was killed, its descendants come to the daemon.
/// `known` holds the launcher and every living shim. A shim whose `Forked` wasn't read yet isn't
/// known, so read that of every launch under way first. Blocks for as long as the kernel takes to
/// end the processes; to be called from a thread that may.
///
/// # Errors
/// When the tree isn't empty at the end, and why.
pub fn sweep(known: &BTreeSet<Pid>) -> Result<usize, SweepError> {
    let deadline = clock::since_boot() + SWEEP_TIMEOUT;
    let own = process::own_pid();
    let skip = |pid: Pid| known.contains(&pid);
    let mut killed = 0;
    loop {
        let pass = tree::kill_below(own, &skip).map_err(SweepError::List)?;
        killed += pass.killed.len();
        for process in &pass.killed {
            await_end(process.pid, deadline);
        }
        let mut left = Vec::new();
        for stat in procfs::descendants(own, &skip).map_err(SweepError::List)? {
            // A zombie of somebody else's is reaped by them, or comes here when they end.
            let reaped =
                stat.parent == own && matches!(process::reap(Which::One(stat.pid)), Ok(Some(_)));
            if !reaped && !pass.refused.contains(&stat.pid) {
                left.push(stat.pid);
            }
        }
        if left.is_empty() {
            return if pass.refused.is_empty() {
                Ok(killed)
            } else {
                Err(SweepError::Refused(pass.refused))
            };
        }
        if clock::since_boot() >= deadline {
            return Err(SweepError::Lingering(left));
        }
    }
}

/// Waits until a process has ended (its pidfd becomes readable), at most until `deadline`.
fn await_end(pid: Pid, deadline: Duration) {
    let Ok(pidfd) = process::pidfd(pid) else { return };
    let left = deadline.saturating_sub(clock::since_boot());
    let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO);
    let _ = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout);
}
