//! The shim's end of an init.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::init::{LAST_WORD, LastWord};
use crate::sys::channel::{self, Wait};
use crate::sys::process::{self, End, Pid};

/// An init that this process forked.
#[derive(Debug)]
pub(in crate::launch) struct InitLink {
    /// Until it is reaped: its id can't be used again before.
    pid: Option<Pid>,
    socket: Option<OwnedFd>,
    killed: u32,
    unreached: u32,
}

impl InitLink {
    pub(in crate::launch) const fn new(pid: Pid, socket: OwnedFd) -> Self {
        Self { pid: Some(pid), socket: Some(socket), killed: 0, unreached: 0 }
    }

    /// Its id; `None` once it was reaped.
    pub(in crate::launch) const fn pid(&self) -> Option<Pid> {
        self.pid
    }

    /// What to poll for reading; `None` once it is closed.
    pub(in crate::launch) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Reads what it says. Returns how the payload ended, when it says that.
    pub(in crate::launch) fn read(&mut self) -> Option<End> {
        let mut how = None;
        let mut buffer = [0; LAST_WORD];
        while let Some(socket) = &self.socket {
            match channel::receive(socket.as_fd(), &mut buffer, Wait::Never) {
                Ok(received) if received.length > 0 => {
                    match LastWord::decode(buffer.get(..received.length).unwrap_or_default()) {
                        Some(LastWord::PayloadEnded(end)) => how = Some(end),
                        Some(LastWord::Killed(count)) => self.killed = count,
                        Some(LastWord::Unreached(count)) => self.unreached = count,
                        None => {}
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => break,
                Ok(_) | Err(_) => self.socket = None,
            }
        }
        how
    }

    /// Says that the payload's end is known: its number may be used again, the rest may be killed.
    pub(in crate::launch) fn dismiss(&self) {
        if let Some(socket) = &self.socket {
            // If it fails the init is gone, and with it all the rest.
            let _ = channel::send(socket.as_fd(), b".", &[], Wait::Never);
        }
    }

    /// Kills it, and so the whole namespace.
    pub(in crate::launch) fn kill(&self) {
        if let Some(pidfd) = self.pid.and_then(|pid| process::pidfd(pid).ok()) {
            let _ = process::signal(pidfd.as_fd(), libc::SIGKILL);
        }
    }

    /// Notes that a child was reaped. True if it was this one.
    pub(in crate::launch) fn reaped(&mut self, pid: Pid) -> bool {
        let is_init = self.pid == Some(pid);
        if is_init {
            self.pid = None;
        }
        is_init
    }

    /// How often something was tried on a network that isn't there.
    pub(in crate::launch) const fn unreached(&self) -> u32 {
        self.unreached
    }

    /// Processes that were left and that it killed.
    pub(in crate::launch) const fn killed(&self) -> u32 {
        self.killed
    }
}
