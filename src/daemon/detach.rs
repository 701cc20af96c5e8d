//! `missiond start --detach`: a background process, and the word that everything is up.
//!
//! ```text
//! start --detach --spawn--> start --background (own session)
//!      |                        |  "ready NAME" | "failed WHY" on standard output
//!      v                        v
//!  returns 0 or 1           goes on, words into daemon.log
//! ```
//!
//! Ready is the same as for a service manager: the control socket answers, and every service agent
//! was up once. What becomes of them later is no longer part of the start: `missionctl status` has it.
//!
//! What it complains of before that is on the background process's standard error, and is passed on.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Whether somebody waits for us in the foreground.
#[derive(Debug)]
pub(super) enum Detached {
    /// This is the foreground.
    No,
    /// Standard output leads to somebody who waits.
    Waited,
    /// The word was given.
    Told,
}

impl Detached {
    /// Whether this is a background process.
    #[must_use]
    pub(super) fn is_detached(&self) -> bool {
        !matches!(self, Detached::No)
    }

    /// Everything is up.
    pub(super) fn up(&mut self, mission: &str) {
        self.say(&format!("ready {mission}\n"));
    }

    /// Something could not be started; the mission goes on.
    pub(super) fn failed(&mut self, why: &str) {
        self.say(&format!("failed {}\n", super::screen::clean(why)));
    }

    fn say(&mut self, line: &str) {
        if !matches!(self, Detached::Waited) {
            return;
        }
        *self = Detached::Told;
        // Whoever waited may have been killed meanwhile.
        let _unheard = io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().flush());
        let _kept = leave_stdio();
    }
}

/// Lets go of the pipes to whoever started us.
fn leave_stdio() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

/// What became of a background start.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Everything is up.
    Ready {
        /// The mission's name.
        mission: String,
        /// The daemon.
        pid: u32,
    },
    /// It runs, but something could not be started.
    Partly {
        /// The daemon.
        pid: u32,
        /// What, and why.
        why: String,
    },
    /// It has ended.
    Ended {
        /// With this exit code.
        code: u8,
        /// Its results.
        output: String,
    },
}

/// Starts `missiond start --background` and waits until everything is up, or it is over.
///
/// # Errors
/// It can't be started or heard.
pub(super) fn spawn(file: &Path, more: &[&str]) -> io::Result<Outcome> {
    let mut child = Command::new("/proc/self/exe")
        // For those who look at `ps`.
        .arg0("missiond")
        .args(["start", "--background"])
        .args(more)
        .arg("--")
        .arg(file)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let pid = child.id();
    let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
    let mut stdout = child.stdout.take().ok_or_else(closed)?;
    let mut stderr = child.stderr.take().ok_or_else(closed)?;
    let mut said = Vec::new();
    let mut complains = true;
    loop {
        let both = [Some(stdout.as_fd()), complains.then(|| stderr.as_fd())];
        let ready = readable(both.into_iter().flatten(), PollTimeout::NONE)?;
        if ready.get(1) == Some(&true) {
            complains = pass_on(&mut stderr)? > 0;
        }
        if ready.first() != Some(&true) {
            continue;
        }
        let mut bytes = [0; 4096];
        match stdout.read(&mut bytes)? {
            0 => break,
            count => said.extend_from_slice(&bytes[..count]),
        }
        let line = said.strip_suffix(b"\n").and_then(|line| str::from_utf8(line).ok());
        let outcome = match line.and_then(|line| line.split_once(' ')) {
            Some(("ready", mission)) => Outcome::Ready { mission: mission.to_owned(), pid },
            Some(("failed", why)) => Outcome::Partly { why: why.to_owned(), pid },
            Some(_) | None => continue,
        };
        // What it complained of before its word is there by now. The end of it may never come: its
        // launcher has the pipe, too.
        while complains && readable([stderr.as_fd()], PollTimeout::ZERO)?.contains(&true) {
            complains = pass_on(&mut stderr)? > 0;
        }
        return Ok(outcome);
    }
    // It has no word to give: it ends, well or badly.
    while complains {
        complains = pass_on(&mut stderr)? > 0;
    }
    let code = child.wait()?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(Outcome::Ended { code, output: String::from_utf8_lossy(&said).into_owned() })
}

/// Waits until one of them can be read, or has ended: which.
fn readable<'a>(
    fds: impl IntoIterator<Item = BorrowedFd<'a>>,
    timeout: PollTimeout,
) -> io::Result<Vec<bool>> {
    let mut polled: Vec<_> = fds.into_iter().map(|fd| PollFd::new(fd, PollFlags::POLLIN)).collect();
    match poll(&mut polled, timeout) {
        Err(Errno::EINTR) => Ok(Vec::new()),
        Err(errno) => Err(errno.into()),
        Ok(_) => Ok(polled.iter().map(|one| one.any() == Some(true)).collect()),
    }
}

/// Passes on what is there, which is clean already; how much that was, 0 at its end.
fn pass_on(from: &mut impl Read) -> io::Result<usize> {
    let mut bytes = [0; 4096];
    let count = from.read(&mut bytes)?;
    // Whoever closed standard error does not want to know.
    let _unheard = io::stderr().write_all(&bytes[..count]);
    Ok(count)
}

/// Becomes a background process: the leader of its own session, without a terminal.
///
/// # Errors
/// It leads a process group already.
pub(super) fn leave_terminal() -> io::Result<()> {
    nix::unistd::setsid()?;
    // It was executed by a name that says nothing.
    crate::sys::process::set_name(c"missiond")?;
    std::env::set_current_dir("/")?;
    let _stdin: File = OpenOptions::new().read(true).open("/dev/null")?;
    Ok(())
}
