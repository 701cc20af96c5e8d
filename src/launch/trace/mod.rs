//! Shows which system calls of a command fail, and on what: for `missiond run --trace`.
//!
//! ```text
//! parked payload --seize, interrupt--> stopped --go--> exec
//!     each system call of each of its threads:
//!     entry (number, arguments) --> exit (errno) --failed--> what was it about? --> Failed
//! ```
//!
//! The kernel stops every thread twice for each system call, so a command takes many times as long.
//! What it can't show: work that a thread hands to the kernel without a call (`io_uring`), work that it
//! asks another process for, and the calls of a program whose own debugger wanted to trace it.
//!
//! Landlock allows it because the tracer is in no domain, and the user namespace because its owner
//! stands outside of it. It deliberately judges nothing: whose fault a failure is, the plan says.

mod about;

use std::collections::BTreeMap;
use std::io;

use super::message::Process;
use crate::policy::why::Call;
use crate::sys::process::{End, Pid};
use crate::sys::ptrace::{self, Change, SystemCall};

pub use about::{Subject, Target};

/// A system call that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// The call as it was made.
    pub call: Call,
    /// Its error.
    pub errno: i32,
    /// What it was about.
    pub subject: Subject,
}

/// Errors that a policy can be the cause of.
const OF_INTEREST: [i32; 18] = [
    libc::EPERM,
    libc::ENOENT,
    libc::EACCES,
    libc::EROFS,
    libc::ENOSYS,
    libc::EBUSY,
    libc::EXDEV,
    libc::ENOSPC,
    libc::EMFILE,
    libc::EFBIG,
    libc::EAGAIN,
    libc::ENOMEM,
    libc::ENETUNREACH,
    libc::EHOSTUNREACH,
    libc::ENETDOWN,
    libc::ECONNREFUSED,
    libc::EAFNOSUPPORT,
    libc::ENOTDIR,
];

/// The watched threads.
#[derive(Debug, Default)]
pub(super) struct Tracer {
    /// The call that each is in.
    calls: BTreeMap<Pid, Call>,
}

impl Tracer {
    /// Watches a parked payload. To be let go afterwards.
    pub(super) fn begin(payload: Process) -> io::Result<Self> {
        ptrace::seize(payload.pid)?;
        // It stops where it waits, and is seen from its next call on.
        ptrace::interrupt(payload.pid)?;
        Ok(Self::default())
    }

    /// Takes all that has happened. The end of `child`, if that was among it.
    pub(super) fn advance(
        &mut self,
        child: Pid,
        tell: &mut dyn FnMut(Failed),
    ) -> io::Result<Option<End>> {
        loop {
            let (pid, change) = match ptrace::next() {
                Ok(Some(change)) => change,
                Ok(None) => return Ok(None),
                Err(error) => return Err(error),
            };
            // Whoever was killed meanwhile is told of by the next change.
            let _ = match change {
                Change::Ended(end) => {
                    self.calls.remove(&pid);
                    if pid == child {
                        return Ok(Some(end));
                    }
                    Ok(())
                }
                Change::SystemCall => {
                    self.call(pid, tell);
                    ptrace::resume(pid, 0)
                }
                Change::Signal(signal) => ptrace::resume(pid, signal),
                Change::Stopped => ptrace::leave_stopped(pid),
                Change::Event => ptrace::resume(pid, 0),
            };
        }
    }

    fn call(&mut self, pid: Pid, tell: &mut dyn FnMut(Failed)) {
        match ptrace::system_call(pid) {
            Ok(SystemCall::Entry { arch, number, args }) => {
                let Ok(number) = u32::try_from(number) else { return };
                self.calls.insert(pid, Call { number, arch, args });
            }
            Ok(SystemCall::Exit { value, failed: true }) => {
                let Some(call) = self.calls.remove(&pid) else { return };
                let Ok(errno) = i32::try_from(-value) else { return };
                if OF_INTEREST.contains(&errno) {
                    let subject = Subject::of(pid, &call);
                    tell(Failed { call, errno, subject });
                }
            }
            Ok(SystemCall::Exit { .. } | SystemCall::None) | Err(_) => {
                self.calls.remove(&pid);
            }
        }
    }
}
