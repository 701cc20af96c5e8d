//! Ends all that lives below a shim, pass by pass.
//!
//! The first passes reap as they go, which is all that an ordinary agent takes. Against a chain of
//! processes in which each forks the next and exits, no signal arrives in time: whoever was seen is
//! gone. Such a chain lives on the room that reaping makes. So after a few passes the hunt *starves*
//! it: the dead stay unreaped and count against the agent's limit of processes (`RLIMIT_NPROC`), until
//! forking fails, the last one stands still and can be killed.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use super::tree::{self, Pass};
use crate::sys::clock;
use crate::sys::process::{self, End, Pid};

/// Pause between two passes; doubles up to [`LAST_PAUSE`] while there is nothing to kill.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_secs(1);
/// Passes that reap as they go.
const PATIENT_PASSES: u32 = 3;
/// Most of the dead that are left unreaped: an agent without a limit must not use up all ids.
const MOST_DEAD: usize = 8192;

/// One hunt, from the first SIGKILL to ECHILD.
#[derive(Debug)]
pub(super) struct Hunt {
    passes: u32,
    next_pass: Duration,
    pause: Duration,
    /// Killed by the last pass, not yet reaped.
    dying: BTreeSet<Pid>,
    dead: BTreeSet<Pid>,
    starving: bool,
    killed: u32,
}

impl Hunt {
    /// A hunt that is due at once.
    pub(super) const fn new() -> Self {
        Self::starting_at(Duration::ZERO)
    }

    /// A hunt whose first pass is due at this time since boot.
    pub(super) const fn starting_at(next_pass: Duration) -> Self {
        Self {
            passes: 0,
            next_pass,
            pause: FIRST_PAUSE,
            dying: BTreeSet::new(),
            dead: BTreeSet::new(),
            starving: false,
            killed: 0,
        }
    }

    /// When the next pass is due, in time since boot.
    pub(super) const fn next_pass(&self) -> Duration {
        self.next_pass
    }

    /// Processes that were killed and came to us, except the payload.
    pub(super) const fn killed(&self) -> u32 {
        self.killed
    }

    /// Whether the dead may be reaped now.
    pub(super) const fn may_reap(&self) -> bool {
        !self.starving
    }

    /// Notes that a process was reaped; when all that were killed are, the next pass is due.
    pub(super) fn reaped(&mut self, pid: Pid, end: End, is_payload: bool) {
        if end == End::Signaled(libc::SIGKILL) && !is_payload {
            self.killed = self.killed.saturating_add(1);
        }
        if self.dying.remove(&pid) && self.dying.is_empty() {
            self.next_pass = Duration::ZERO;
        }
    }

    /// Makes a pass. Returns processes that can't be killed.
    ///
    /// # Errors
    /// If `/proc` can't be read.
    pub(super) fn pass(&mut self) -> io::Result<Vec<Pid>> {
        self.next_pass = clock::since_boot() + self.pause;
        let Pass { killed, refused, dead } = tree::kill_below(process::own_pid(), &|_| false)?;
        let dying: BTreeSet<Pid> = killed.iter().map(|process| process.pid).collect();
        self.passes += 1;
        // Nothing lives, and nobody died since the last look: there is no chain.
        let settled = dying.is_empty() && dead == self.dead;
        self.starving = self.passes > PATIENT_PASSES
            && !settled
            && refused.is_empty()
            && dead.len() < MOST_DEAD;
        self.pause = if dying.is_empty() && !self.starving {
            (self.pause * 2).min(LAST_PAUSE)
        } else {
            FIRST_PAUSE
        };
        self.dying = dying;
        self.dead = dead;
        Ok(refused)
    }
}
