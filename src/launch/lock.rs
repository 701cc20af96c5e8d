//! The lock of an agent: one living incarnation at a time.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, poll};

use super::message::{Command, MAX_COMMAND, Step, until};
use super::status::{Failure, at};
use crate::sys::channel::{self, Wait};
use crate::sys::clock;
use crate::sys::process::{self, End, Fork, ParentOf, Which};
use crate::sys::signals::ChildEvents;

/// Opens and locks `path`, waiting for an older holder until the timeout.
///
/// The waiting is done by a child: a lock of flock(2) belongs to the open file, which both share, so
/// that what the child gets the shim has; and the shim goes on listening.
pub(super) fn take_lock(
    path: &Path,
    timeout: Duration,
    channel: &OwnedFd,
    children: &ChildEvents,
) -> Result<OwnedFd, Failure> {
    let failed =
        |error: io::Error| Failure { detail: path.display().to_string(), ..at(Step::Lock)(error) };
    let file: OwnedFd = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)
        .map_err(failed)?
        .into();
    match process::lock_exclusive(file.as_fd(), false) {
        Ok(()) => return Ok(file),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(error) => return Err(failed(error)),
    }
    let deadline = clock::since_boot() + timeout;
    let shim = process::own_pid();
    let waiter = match process::fork(ParentOf::Caller).map_err(failed)? {
        Fork::Parent(pid) => pid,
        Fork::Child => {
            let got = process::die_with_parent().is_ok()
                && process::parent_pid() == shim
                && process::lock_exclusive(file.as_fd(), true).is_ok();
            process::exit_now(i32::from(!got));
        }
    };
    let outcome = loop {
        let mut fds = [
            PollFd::new(children.as_fd(), PollFlags::POLLIN),
            PollFd::new(channel.as_fd(), PollFlags::POLLIN),
        ];
        let _ = poll(&mut fds, until(deadline, clock::since_boot()));
        let asked = fds.get(1).and_then(PollFd::any) == Some(true);
        let _ = children.drain();
        match process::reap(Which::One(waiter)) {
            Ok(Some((_, End::Exited(0)))) => return Ok(file),
            Ok(Some(_)) => return Err(failed(io::Error::from_raw_os_error(libc::EIO))),
            Ok(None) => {}
            Err(error) => return Err(failed(error)),
        }
        if asked && cancelled(channel) {
            break libc::ECANCELED;
        }
        if clock::since_boot() >= deadline {
            break libc::ETIMEDOUT;
        }
    };
    if let Ok(pidfd) = process::pidfd(waiter) {
        let _ = process::signal(pidfd.as_fd(), libc::SIGKILL);
        let _ = process::reap_blocking(Which::One(waiter));
    }
    Err(failed(io::Error::from_raw_os_error(outcome)))
}

/// Whether what came on the channel ends the wait: a stop, or its closing.
fn cancelled(channel: &OwnedFd) -> bool {
    let mut buffer = [0; MAX_COMMAND];
    match channel::receive(channel.as_fd(), &mut buffer, Wait::Never) {
        Ok(received) if received.length > 0 => {
            let text = buffer.get(..received.length).unwrap_or_default();
            matches!(serde_json::from_slice(text), Ok(Command::Stop { .. }))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
        Ok(_) | Err(_) => true,
    }
}
