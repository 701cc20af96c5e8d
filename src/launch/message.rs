//! What daemon and shim say to each other, and its form on the channel.
//!
//! One JSON object a message; captured output goes ahead of `Ended` in raw pieces. Pieces and not a
//! memfd: descriptors in flight count per user, so an agent could make the passing of one fail.

use std::fmt;
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::poll::PollTimeout;
use serde::{Deserialize, Serialize};

use crate::sys::channel::{self, Wait};
use crate::sys::process::{End, Pid, Usage};

/// A process, named for good: ids are used again, ids with a start time are not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Process {
    /// Its id.
    pub pid: Pid,
    /// Its start, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub start: u64,
}

/// From the daemon to a shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Let a parked payload exec. [`ShimHandle::release`](super::ShimHandle::release) adds what became
    /// known while it was parked.
    Go,
    /// Send a signal to the payload's process group.
    Signal(i32),
    /// SIGTERM to the payload's group, then after the grace SIGKILL to the whole subtree. A second
    /// one can only shorten the grace.
    Stop {
        /// Milliseconds; 0 kills at once.
        grace_ms: u64,
    },
}

/// From a shim to the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// The shim runs; always first.
    Forked {
        /// The shim.
        shim: Process,
    },
    /// Everything but the exec is done; the payload waits for [`Command::Go`].
    Parked {
        /// The payload.
        payload: Process,
    },
    /// The payload's program runs.
    Started {
        /// The payload; leader of its own session and group.
        payload: Process,
    },
    /// It doesn't, and nothing is left of it.
    SetupFailed {
        /// What was being done.
        step: Step,
        /// Why, as errno; 0 when it isn't the kernel's answer.
        errno: i32,
        /// On what: a path, a limit.
        detail: String,
    },
    /// A process below the shim can't be killed (it belongs to another user now); the shim waits
    /// for it. At most once in a shim's life.
    Unkillable {
        /// The processes.
        pids: Vec<Pid>,
    },
    /// Something outside has replaced or removed protected places of the sandbox, which took their
    /// protection away; the agent is being killed. At most once in a shim's life.
    Detached {
        /// Their paths, for people.
        places: String,
    },
    /// The payload has ended and no process is left below the shim. Always last.
    Ended(Ended),
}

/// The end of a payload and of everything it left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// How the payload itself ended.
    pub how: End,
    /// The first bytes of its standard output, if they were to be captured.
    #[serde(skip)]
    pub stdout: Option<Vec<u8>>,
    /// It wrote more than was kept.
    pub stdout_truncated: bool,
    /// Bytes of output that couldn't be written to the logs.
    pub log_dropped: u64,
    /// What it and its descendants used.
    pub usage: Usage,
    /// Processes that it left behind and that were killed.
    pub killed: u32,
    /// The kernel has killed it at the memory limit of its control group.
    pub out_of_memory: bool,
}

/// How one start of an agent came out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// The payload returned this code.
    Exited(i32),
    /// A signal killed it.
    Signaled(i32),
    /// The kernel has killed it, all of it, at the memory limit of its control group.
    OutOfMemory,
    /// It never ran.
    SetupFailed {
        /// What was being done.
        step: Step,
        /// Why, as errno.
        errno: i32,
        /// On what.
        detail: String,
    },
    /// No report: its shim was killed. Never a success, and descendants may be left: see
    /// [`sweep`](super::sweep).
    Lost,
}

impl From<&Ended> for Exit {
    fn from(ended: &Ended) -> Self {
        match ended.how {
            End::Signaled(libc::SIGKILL) if ended.out_of_memory => Self::OutOfMemory,
            End::Exited(code) => Self::Exited(code),
            End::Signaled(signal) => Self::Signaled(signal),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exited with code {code}"),
            Self::Signaled(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
            Self::OutOfMemory => f.write_str("out of memory: killed at its memory limit"),
            Self::SetupFailed { step, errno, detail } => {
                write!(f, "not started: {step}")?;
                if !detail.is_empty() {
                    write!(f, " {detail}")?;
                }
                if *errno != 0 {
                    let errno = nix::errno::Errno::from_raw(*errno);
                    write!(f, ": {} ({errno:?})", errno.desc().to_lowercase())?;
                }
                Ok(())
            }
            Self::Lost => f.write_str("lost: its shim was killed"),
        }
    }
}

/// The named steps of a start, in the order in which they happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Launcher: fork the shim.
    Shim,
    /// Shim: read the request.
    Spec,
    /// Shim: own session, subreaper, signals.
    Prepare,
    /// Shim: wait for the older incarnation's lock.
    Lock,
    /// Shim: open the logs.
    Log,
    /// Shim: open the control group.
    Cgroup,
    /// Shim (at level 2 the init): fork the payload.
    Fork,
    /// Shim: fork the init into new namespaces.
    Namespaces,
    /// Init: tie itself to its shim.
    Init,
    /// Init: map the user and the group to themselves.
    IdMap,
    /// Init: limit what namespaces can be made below.
    NamespaceLimits,
    /// Init: bring up the loopback device.
    Loopback,
    /// Init: set the name of the machine.
    Hostname,
    /// Init: make the root of the tree.
    Root,
    /// Init: one node of the tree.
    Mount,
    /// Init: leave the host's tree for the new one.
    Pivot,
    /// Payload: own session and group, dies with its shim.
    Session,
    /// Payload: standard input, output, error; all others close on exec.
    Fds,
    /// Payload: resource limits.
    Limits,
    /// Payload: working directory.
    Cwd,
    /// Payload: drop all capabilities, of which only root has any.
    Capabilities,
    /// Payload: no_new_privs.
    NoNewPrivs,
    /// Payload: Landlock.
    Landlock,
    /// Payload: seccomp.
    Seccomp,
    /// Payload: run the program.
    Exec,
    /// Shim: watch whether protected places stay protected.
    Watch,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shim => "fork the shim",
            Self::Spec => "read the launch request",
            Self::Prepare => "prepare the shim",
            Self::Lock => "lock",
            Self::Log => "open logs",
            Self::Cgroup => "open control group",
            Self::Fork => "fork the payload",
            Self::Namespaces => "make namespaces",
            Self::Init => "tie the init to its shim",
            Self::IdMap => "map ids in",
            Self::NamespaceLimits => "limit namespaces in",
            Self::Loopback => "bring up the loopback device",
            Self::Hostname => "set the hostname",
            Self::Root => "make the root of the tree",
            Self::Mount => "mount",
            Self::Pivot => "enter the tree",
            Self::Session => "make a session",
            Self::Fds => "set up descriptors",
            Self::Limits => "set resource limits",
            Self::Cwd => "change directory to",
            Self::Capabilities => "drop capabilities",
            Self::NoNewPrivs => "set no_new_privs",
            Self::Landlock => "apply landlock",
            Self::Seccomp => "load the seccomp filter",
            Self::Exec => "execute",
            Self::Watch => "watch the mounts",
        })
    }
}

impl Step {
    /// What a person can do about it where a start fails at this step with this errno, if the cause
    /// is the machine and not the plan.
    #[must_use]
    pub const fn help(self, errno: i32) -> Option<&'static str> {
        match (self, errno) {
            (
                Self::Namespaces | Self::IdMap | Self::Loopback | Self::Root,
                libc::EPERM | libc::EACCES,
            )
            | (Self::Namespaces, libc::ENOSPC | libc::EUSERS) => Some(
                "this system restricts unprivileged user namespaces; `missiond doctor` shows how to \
                 allow them",
            ),
            (Self::Namespaces, libc::ENOSYS | libc::EINVAL) => {
                Some("this kernel lacks a namespace that level 2 needs")
            }
            (Self::NamespaceLimits, libc::EROFS) => {
                Some("a container keeps /proc/sys read-only here; run missiond outside of it")
            }
            (Self::Mount, libc::EPERM) => Some(
                "the kernel refuses this mount to ordinary users; in a container that covers parts \
                 of /proc it refuses another /proc",
            ),
            (_, libc::EMFILE | libc::ENFILE) => Some("too many files are open"),
            _ => None,
        }
    }
}

/// Largest message on a channel, bytes.
pub(super) const MAX_MESSAGE: usize = 64 * 1024;
/// Largest command, bytes.
pub(super) const MAX_COMMAND: usize = 256;
/// Bytes of captured output in one message.
const PIECE: usize = 32 * 1024;

const TAG_JSON: u8 = b'J';
const TAG_STDOUT: u8 = b'O';

/// One message of a shim, decoded.
#[derive(Debug)]
pub(super) enum Frame {
    Report(Report),
    Stdout(Vec<u8>),
}

/// Sends a report; captured output of an `Ended` goes first.
pub(super) fn send_report(channel: BorrowedFd<'_>, report: &Report) -> io::Result<()> {
    if let Report::Ended(Ended { stdout: Some(stdout), .. }) = report {
        for piece in stdout.chunks(PIECE) {
            send_tagged(channel, TAG_STDOUT, piece)?;
        }
    }
    send_tagged(channel, TAG_JSON, &serde_json::to_vec(report)?)
}

fn send_tagged(channel: BorrowedFd<'_>, tag: u8, body: &[u8]) -> io::Result<()> {
    let mut message = Vec::with_capacity(body.len() + 1);
    message.push(tag);
    message.extend_from_slice(body);
    channel::send(channel, &message, &[], Wait::Block)
}

/// Decodes one message of a shim.
pub(super) fn decode(message: &[u8]) -> io::Result<Frame> {
    match message.split_first() {
        Some((&TAG_JSON, body)) => Ok(Frame::Report(serde_json::from_slice(body)?)),
        Some((&TAG_STDOUT, body)) => Ok(Frame::Stdout(body.to_vec())),
        Some(_) | None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The time left, rounded up, so that poll doesn't wake just before.
pub(super) fn until(deadline: Duration, now: Duration) -> PollTimeout {
    let left = deadline.saturating_sub(now) + Duration::from_micros(999);
    PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX)
}
