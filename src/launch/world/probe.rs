//! Whether level 2 works here, by trying it.
//!
//! Making namespaces can succeed and the id map after it fail (AppArmor, a sysctl, a container), so
//! nothing is concluded from versions or settings: a throwaway process makes a small world in all
//! steps and says where it got stuck.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use super::{Ids, make};
use crate::launch::message::{Step, until};
use crate::launch::status::{Failure, at};
use crate::policy::sandbox::{Access, Network, Node, SandboxPlan, Trust};
use crate::sys::channel::{self, Wait};
use crate::sys::process::{self, Fork, Which};
use crate::sys::{clock, namespace};

/// The argument that makes `missiond` a probe.
pub(in crate::launch) const ARGUMENT: &CStr = c"__probe";

/// How long a probe may take. It takes about a millisecond.
const DEADLINE: Duration = Duration::from_secs(10);

const MAX_ANSWER: usize = 4096;

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level2 {
    /// A world was made.
    Works {
        /// It had a `/proc` of its own; false where a container hides parts of its `/proc`, for which
        /// the kernel forbids another one.
        own_proc: bool,
    },
    /// It can't be made.
    Fails {
        /// The first step that failed.
        step: Step,
        /// Why, as errno.
        errno: i32,
        /// On what.
        detail: String,
    },
}

/// Tries to make a world, in a process of its own: `exe __probe`, where `exe` is this program. May be
/// called with any number of threads; blocks for about a millisecond.
///
/// # Errors
/// If the probe can't be started or doesn't answer.
pub fn probe_level_2(exe: &Path) -> io::Result<Level2> {
    let path = CString::new(exe.as_os_str().as_bytes())?;
    let (ours, theirs) = channel::pair()?;
    let pid = process::spawn(&path, &[c"missiond", ARGUMENT], theirs.as_fd())?;
    drop(theirs);
    let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
    let answered = poll(&mut fds, until(DEADLINE, Duration::ZERO))? > 0;
    if !answered && let Ok(pidfd) = process::pidfd(pid) {
        let _ = process::signal(pidfd.as_fd(), libc::SIGKILL);
    }
    let mut buffer = [0; MAX_ANSWER];
    let received = channel::receive(ours.as_fd(), &mut buffer, Wait::Never);
    // Somebody who reaps all children may have been quicker.
    let _ = process::reap_blocking(Which::One(pid));
    let length = received?.length;
    Ok(serde_json::from_slice(buffer.get(..length).unwrap_or_default())?)
}

/// The probe itself, single-threaded; answers on the channel.
pub(in crate::launch) fn answer(channel: BorrowedFd<'_>) -> io::Result<()> {
    let found = match attempt(&plan(true)) {
        Ok(()) => Level2::Works { own_proc: true },
        Err(failure) if failure.step == Step::Mount => match attempt(&plan(false)) {
            Ok(()) => Level2::Works { own_proc: false },
            Err(failure) => failure.into(),
        },
        Err(failure) => failure.into(),
    };
    channel::send(channel, &serde_json::to_vec(&found)?, &[], Wait::Block)
}

impl From<Failure> for Level2 {
    fn from(Failure { step, errno, detail }: Failure) -> Self {
        Self::Fails { step, errno, detail }
    }
}

/// A world with one node of each kind that a kernel might refuse.
fn plan(own_proc: bool) -> SandboxPlan {
    let mut tree = vec![
        Node::Bind {
            source: "/usr".into(),
            target: "/usr".into(),
            access: Access::Read,
            trust: Trust::System,
        },
        Node::Bind {
            source: "/dev/null".into(),
            target: "/dev/null".into(),
            access: Access::Device,
            trust: Trust::System,
        },
        Node::Devpts { target: "/dev/pts".into() },
        Node::Tmpfs {
            target: "/tmp".into(),
            bytes: 1 << 20,
            inodes: 16,
            mode: 0o1777,
            writable: true,
        },
    ];
    if own_proc {
        tree.push(Node::Proc { target: "/proc".into() });
    }
    SandboxPlan {
        network: Network::None,
        hostname: "probe".into(),
        user_namespaces: 0,
        inotify_instances: 1,
        tree,
    }
}

fn attempt(plan: &SandboxPlan) -> Result<(), Failure> {
    let ids = Ids::own();
    let (ours, theirs) = channel::pair().map_err(at(Step::Fork))?;
    let child = match namespace::fork_into_new(true, None).map_err(at(Step::Namespaces))? {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            drop(ours);
            // Its life is bounded by the parent's, whom the asker kills at the deadline.
            let outcome =
                process::die_with_parent().map_err(at(Step::Init)).and_then(|()| make(plan, ids));
            let sent = serde_json::to_vec(&outcome.err())
                .map_err(io::Error::from)
                .and_then(|text| channel::send(theirs.as_fd(), &text, &[], Wait::Block));
            process::exit_now(i32::from(sent.is_err()))
        }
    };
    drop(theirs);
    let mut buffer = [0; MAX_ANSWER];
    let deadline = clock::since_boot() + DEADLINE;
    let mut fds = [PollFd::new(ours.as_fd(), PollFlags::POLLIN)];
    let _ = poll(&mut fds, until(deadline, clock::since_boot()));
    let answer = channel::receive(ours.as_fd(), &mut buffer, Wait::Never)
        .and_then(|got| Ok(serde_json::from_slice(buffer.get(..got.length).unwrap_or_default())?));
    let _ = process::reap(Which::One(child));
    match answer.map_err(at(Step::Init))? {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}
