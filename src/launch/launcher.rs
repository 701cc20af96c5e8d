//! The daemon's end of the launcher.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::handle::ShimHandle;
use super::spec::{LaunchSpec, MAX_SPEC};
use super::zygote::ARGUMENT;
use crate::sys::channel::{self, Wait};
use crate::sys::memfd;
use crate::sys::process::{self, Pid};

/// Why a launch could not even be asked for.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The launcher can't be started.
    #[error("cannot start the launcher {path}")]
    Spawn {
        /// The program.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The request has no program.
    #[error("launch of agent {agent} names no program")]
    NoProgram {
        /// The agent.
        agent: String,
    },
    /// The request is larger than a launcher reads.
    #[error("launch request of agent {agent} has {bytes} bytes, more than {MAX_SPEC}")]
    TooLarge {
        /// The agent.
        agent: String,
        /// Its size.
        bytes: usize,
    },
    /// The launcher has many requests waiting; try again when its socket is writable.
    #[error("launcher is busy")]
    Busy,
    /// The request can't be sent.
    #[error("cannot send the launch request of agent {agent}")]
    Send {
        /// The agent.
        agent: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

/// A running launcher. Dropping it closes its channel, on which it ends; shims live on.
#[derive(Debug)]
pub struct Launcher {
    exe: CString,
    channel: OwnedFd,
    pid: Pid,
}

impl Launcher {
    /// Starts `exe __launcher`. `exe` is this program: `/proc/self/exe` names it even after the
    /// file was replaced by an upgrade.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn spawn(exe: &Path) -> Result<Self, LaunchError> {
        let failed =
            |source| LaunchError::Spawn { path: exe.to_string_lossy().into_owned(), source };
        let path = CString::new(exe.as_os_str().as_bytes())
            .map_err(|_| failed(io::ErrorKind::InvalidInput.into()))?;
        Self::start(path).map_err(failed)
    }

    fn start(exe: CString) -> io::Result<Self> {
        let (ours, theirs) = channel::pair()?;
        let pid = process::spawn(&exe, &[c"missiond", ARGUMENT], theirs.as_fd())?;
        Ok(Self { exe, channel: ours, pid })
    }

    /// The launcher's process.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Whether it still listens. Agents don't depend on it: it is only needed for the next launch.
    #[must_use]
    pub fn alive(&self) -> bool {
        // Nothing is ever sent this way, so anything but "nothing yet" is the end.
        let mut byte = [0];
        let state = channel::receive(self.channel.as_fd(), &mut byte, Wait::Never);
        matches!(state, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Starts a new launcher in place of this one. The old one, if dead, is for
    /// [`reap`](super::reap()).
    ///
    /// # Errors
    /// If it can't be started.
    pub fn respawn(&mut self) -> Result<(), LaunchError> {
        *self = Self::start(self.exe.clone()).map_err(|source| LaunchError::Spawn {
            path: self.exe.to_string_lossy().into_owned(),
            source,
        })?;
        Ok(())
    }

    /// Asks for a start, without waiting for it. A dead launcher is replaced first.
    ///
    /// The first report is `Forked`; if the launcher dies before it got to this request, the channel
    /// closes instead and the handle says [`Exit::Lost`](super::Exit).
    ///
    /// # Errors
    /// When the request can't be made or sent. What goes wrong later is a report.
    pub fn launch(&mut self, spec: &LaunchSpec) -> Result<ShimHandle, LaunchError> {
        let agent = &spec.agent;
        if spec.argv.is_empty() {
            return Err(LaunchError::NoProgram { agent: agent.clone() });
        }
        let failed = |source| LaunchError::Send { agent: agent.clone(), source };
        let body = serde_json::to_vec(spec).map_err(|error| failed(error.into()))?;
        if body.len() as u64 > MAX_SPEC {
            return Err(LaunchError::TooLarge { agent: agent.clone(), bytes: body.len() });
        }
        let body = memfd::sealed(c"missiond-launch", &body).map_err(failed)?;
        let stdin = spec
            .stdin
            .as_ref()
            .map(|bytes| memfd::sealed(c"missiond-stdin", bytes))
            .transpose()
            .map_err(failed)?;
        let (ours, theirs) = channel::pair().map_err(failed)?;
        let handle = ShimHandle::new(ours, spec.capture_stdout.is_some()).map_err(failed)?;

        let mut fds = vec![body.as_fd(), theirs.as_fd()];
        fds.extend(stdin.as_ref().map(AsFd::as_fd));
        let mut respawned = false;
        loop {
            match channel::send(self.channel.as_fd(), b"L", &fds, Wait::Never) {
                Ok(()) => return Ok(handle),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(LaunchError::Busy);
                }
                Err(error)
                    if !respawned
                        && matches!(
                            error.kind(),
                            io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                        ) =>
                {
                    self.respawn()?;
                    respawned = true;
                }
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

/// For a poller: writable when a launch that was [`LaunchError::Busy`] may go through, readable when
/// the launcher died.
impl AsFd for Launcher {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
