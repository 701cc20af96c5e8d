//! The daemon's end of one shim.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::message::{Command, Ended, Exit, Frame, MAX_MESSAGE, Process, Report, decode};
use crate::sys::channel::{self, Wait};
use crate::sys::{memfd, process};

/// What a read of the channel gave.
#[derive(Debug, PartialEq, Eq)]
pub enum Received {
    /// A report.
    Report(Report),
    /// Nothing now: wait until the channel is readable.
    Nothing,
    /// The shim is gone; see [`ShimHandle::exit`].
    Closed,
}

/// One shim: a channel to command it and hear from it.
///
/// The descriptor ([`AsFd`]) is non-blocking and can be put into any poller for reading. Dropping a
/// handle closes the channel, on which the shim kills its agent at once.
#[derive(Debug)]
pub struct ShimHandle {
    channel: OwnedFd,
    shim: Option<Process>,
    payload: Option<Process>,
    stdout: Option<Vec<u8>>,
    exit: Option<Exit>,
    closed: bool,
}

impl ShimHandle {
    pub(super) fn new(channel: OwnedFd, captures: bool) -> io::Result<Self> {
        channel::set_nonblocking(channel.as_fd())?;
        Ok(Self {
            channel,
            shim: None,
            payload: None,
            stdout: captures.then(Vec::new),
            exit: None,
            closed: false,
        })
    }

    /// Reads the next report, without waiting.
    ///
    /// # Errors
    /// A message that isn't ours (`InvalidData`), or the socket's error. The shim then can't be
    /// talked to: drop the handle and treat it as lost.
    pub fn recv(&mut self) -> io::Result<Received> {
        if self.closed {
            return Ok(Received::Closed);
        }
        let mut buffer = vec![0; MAX_MESSAGE];
        loop {
            let length = match channel::receive(self.channel.as_fd(), &mut buffer, Wait::Never) {
                Ok(received) => received.length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Received::Nothing);
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                Err(error) => return Err(error),
            };
            if length == 0 {
                self.closed = true;
                return Ok(Received::Closed);
            }
            match decode(buffer.get(..length).unwrap_or_default())? {
                Frame::Stdout(piece) => {
                    if let Some(stdout) = &mut self.stdout {
                        stdout.extend_from_slice(&piece);
                    }
                }
                Frame::Report(report) => return Ok(Received::Report(self.note(report))),
            }
        }
    }

    fn note(&mut self, report: Report) -> Report {
        match report {
            Report::Forked { shim } => {
                self.shim = Some(shim);
                report
            }
            Report::Parked { payload } | Report::Started { payload } => {
                self.payload = Some(payload);
                report
            }
            Report::SetupFailed { step, errno, ref detail } => {
                self.exit = Some(Exit::SetupFailed { step, errno, detail: detail.clone() });
                report
            }
            Report::Unkillable { .. } | Report::Detached { .. } => report,
            Report::Ended(ended) => {
                self.exit = Some(Exit::from(&ended));
                Report::Ended(Ended { stdout: self.stdout.take(), ..ended })
            }
        }
    }

    /// Sends a command, without waiting.
    ///
    /// # Errors
    /// `BrokenPipe` or `ConnectionReset` when the shim is gone: its last reports can still be read.
    pub fn send(&self, command: Command) -> io::Result<()> {
        let message = serde_json::to_vec(&command)?;
        channel::send(self.channel.as_fd(), &message, &[], Wait::Never)
    }

    /// Lets a parked payload exec, with what only became known meanwhile: variables that replace or
    /// join those of the spec, and bytes that replace its standard input. Without either it is
    /// [`Command::Go`].
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn release(
        &self,
        environment: &[(String, String)],
        stdin: Option<&[u8]>,
    ) -> io::Result<()> {
        let message = serde_json::to_vec(&Command::Go)?;
        let environment = memfd::sealed(c"missiond-go", &serde_json::to_vec(environment)?)?;
        let stdin = stdin.map(|bytes| memfd::sealed(c"missiond-stdin", bytes)).transpose()?;
        let mut fds = vec![environment.as_fd()];
        fds.extend(stdin.as_ref().map(AsFd::as_fd));
        channel::send(self.channel.as_fd(), &message, &fds, Wait::Never)
    }

    /// The shim, once `Forked` was read.
    #[must_use]
    pub const fn shim(&self) -> Option<Process> {
        self.shim
    }

    /// The payload, once `Parked` or `Started` was read.
    #[must_use]
    pub const fn payload(&self) -> Option<Process> {
        self.payload
    }

    /// How it came out: known after `Ended` or `SetupFailed`, [`Exit::Lost`] if the channel closed
    /// before either, `None` while neither happened.
    #[must_use]
    pub fn exit(&self) -> Option<Exit> {
        self.exit.clone().or_else(|| self.closed.then_some(Exit::Lost))
    }

    /// Kills the shim itself, the last resort against one that no longer answers. What was below it
    /// then belongs to the daemon: [`sweep`](super::sweep) afterwards.
    ///
    /// # Errors
    /// `NotFound` before `Forked`, or if it is gone.
    pub fn kill(&self) -> io::Result<()> {
        let shim = self.shim.ok_or(io::ErrorKind::NotFound)?;
        let pidfd = process::pidfd(shim.pid)?;
        if crate::sys::procfs::stat(shim.pid)?.start != shim.start {
            return Err(io::ErrorKind::NotFound.into());
        }
        process::signal(pidfd.as_fd(), libc::SIGKILL)
    }
}

impl AsFd for ShimHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
