//! The first process of an agent's pid namespace.
//!
//! It makes the world, forks the payload and then does what only it can: reap whatever loses its
//! parent in there. It can't be signalled from inside (pid_namespaces(7)), is undumpable, without
//! capabilities, and holds one descriptor, its link to the shim. When it ends, for whatever reason,
//! the kernel kills every process of the namespace, and it is itself reaped only after the last of
//! them is gone: to the shim, "init was reaped" means "nothing is left".
//!
//! ```text
//! make the world --> fork --> reap orphans --payload ended--> [payload ended] -- shim: seen -->
//!                                  kill the rest, count it --> [killed: n] --> exit
//! ```
//!
//! The payload stays unreaped until the shim has seen that it ended: only until then can the shim
//! signal its group by number. A shim that wants the end before just kills this process.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::{Ids, make};
use crate::launch::message::Step;
use crate::launch::network;
use crate::launch::payload::Payload;
use crate::launch::status::{Failure, at, on};
use crate::policy::sandbox::SandboxPlan;
use crate::sys::channel::{self, Wait};
use crate::sys::process::{self, End, Pid, Which};

/// All that the init has from its shim.
pub(in crate::launch) struct Init<'a> {
    pub(in crate::launch) plan: &'a SandboxPlan,
    pub(in crate::launch) ids: Ids,
    pub(in crate::launch) link: OwnedFd,
    pub(in crate::launch) farewell: Farewell,
    pub(in crate::launch) payload: Payload<'a>,
}

/// How an init takes its leave when the payload has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::launch) enum Farewell {
    /// Waits to be dismissed, then kills and counts what is left.
    Long,
    /// Ends at once, for a parent that waits for nothing else.
    Brief,
}

/// From an init to its shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::launch) enum LastWord {
    /// The payload has ended, and stays unreaped until the shim says that it knows.
    PayloadEnded(End),
    /// All the others were killed: so many.
    Killed(u32),
    /// What was tried on a network that isn't there: so often.
    Unreached(u32),
}

/// Bytes of a [`LastWord`].
pub(in crate::launch) const LAST_WORD: usize = 5;

impl LastWord {
    fn encode(self) -> [u8; LAST_WORD] {
        let (tag, number) = match self {
            Self::PayloadEnded(End::Exited(code)) => (b'E', code),
            Self::PayloadEnded(End::Signaled(signal)) => (b'S', signal),
            Self::Killed(count) => (b'K', count.cast_signed()),
            Self::Unreached(count) => (b'U', count.cast_signed()),
        };
        let [a, b, c, d] = number.to_le_bytes();
        [tag, a, b, c, d]
    }

    /// Reads one back; `None` if it isn't one.
    pub(in crate::launch) fn decode(message: &[u8]) -> Option<Self> {
        let &[tag, a, b, c, d] = message else { return None };
        let number = i32::from_le_bytes([a, b, c, d]);
        match tag {
            b'E' => Some(Self::PayloadEnded(End::Exited(number))),
            b'S' => Some(Self::PayloadEnded(End::Signaled(number))),
            b'K' => Some(Self::Killed(number.cast_unsigned())),
            b'U' => Some(Self::Unreached(number.cast_unsigned())),
            _ => None,
        }
    }
}

impl Init<'_> {
    /// The whole life of an init.
    pub(in crate::launch) fn run(mut self) -> ! {
        match self.prepare() {
            Ok(host_proc) => {
                self.payload.host_proc = Some(host_proc);
                self.payload.parent = process::own_pid();
            }
            Err(failure) => self.payload.give_up(failure),
        }
        // The payload only lives in this memory until its exec: a copy of all of it would be the most
        // expensive step of the start. Should it hang on the way or be parked, nothing here needs to
        // run: the shim ends this process, and so the payload, by a signal.
        let mut payload = self.payload;
        match process::fork_borrowing(|| payload.run()) {
            // Its descriptors go with all others; the status pipe above all, whose end of file is the
            // shim's word that the exec happened.
            Ok(pid) => watch(pid, self.link.as_fd(), self.farewell),
            Err(error) => payload.give_up(at(Step::Fork)(error)),
        }
    }

    /// Everything before the fork; gives the host's `/proc`, for the payload to tell its name by.
    fn prepare(&self) -> Result<OwnedFd, Failure> {
        process::die_with_parent().map_err(at(Step::Init))?;
        // A shim that died before that line sends no signal, and the parent's id reads as 0 in here
        // anyway. But its end of the link is closed then.
        match channel::receive(self.link.as_fd(), &mut [0], Wait::Never) {
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => process::exit_now(1),
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let host_proc = open("/proc", flags, Mode::empty())
            .map_err(|error| on(Step::Init, "/proc")(error.into()))?;
        make(self.plan, self.ids)?;
        Ok(host_proc)
    }
}

fn watch(payload: Pid, link: BorrowedFd<'_>, farewell: Farewell) -> ! {
    // Nothing below returns, so no owner of a closed descriptor will ever use it. A payload that is to
    // be traced has made the memory they shared dumpable.
    if process::close_all_but(link).is_err()
        || process::become_undumpable().is_err()
        || process::set_name(c"missiond-init").is_err()
    {
        process::exit_now(1);
    }
    let end = loop {
        match process::await_end(Which::Any) {
            Ok((pid, end)) if pid == payload => break end,
            Ok((pid, _)) => drop(process::reap(Which::One(pid))),
            Err(_) => process::exit_now(1),
        }
    };
    let tell = |word: LastWord| channel::send(link, &word.encode(), &[], Wait::Block);
    // Nobody asks why something succeeded.
    if farewell == Farewell::Brief && end != End::Exited(0) {
        let _ = tell(LastWord::Unreached(network::unreached()));
    }
    // Should the shim be gone, this process is about to be killed.
    if tell(LastWord::PayloadEnded(end)).is_err()
        || farewell == Farewell::Brief
        || channel::receive(link, &mut [0], Wait::Block).is_err()
        || process::reap_blocking(Which::One(payload)).is_err()
    {
        process::exit_now(1);
    }
    process::kill_namespace();
    let mut killed = 0u32;
    while let Ok((_, end)) = process::reap_blocking(Which::Any) {
        killed = killed.saturating_add(u32::from(end == End::Signaled(libc::SIGKILL)));
    }
    let _ = tell(LastWord::Killed(killed));
    process::exit_now(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_word_is_read_as_it_was_said() {
        for word in [
            LastWord::PayloadEnded(End::Exited(255)),
            LastWord::PayloadEnded(End::Signaled(9)),
            LastWord::Killed(u32::MAX),
            LastWord::Unreached(7),
        ] {
            assert_eq!(LastWord::decode(&word.encode()), Some(word));
        }
        assert_eq!(LastWord::decode(b"E"), None);
        assert_eq!(LastWord::decode(b"?1234"), None);
    }
}
