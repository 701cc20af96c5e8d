//! `missiond start --detach`: a background process, and the word that everything is up.
//!
//! ```text
//! start --detach --spawn--> start --background (own session)
//!      |                        |  "ready" | "failed WHY" on standard output
//!      v                        v
//!  returns 0 or 1           goes on, words into daemon.log
//! ```
//!
//! What goes wrong before that is on the background process's standard error, and is passed on.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

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
    pub(super) fn up(&mut self) {
        self.say("ready\n");
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
        /// What it wrote.
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
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
    stdout.read_line(&mut line)?;
    match line.trim_end() {
        "ready" => return Ok(Outcome::Ready { pid }),
        failed if failed.starts_with("failed ") => {
            return Ok(Outcome::Partly { pid, why: failed["failed ".len()..].to_owned() });
        }
        _ => {}
    }
    // It has something else to say: it ended, well or badly.
    let mut output = line;
    stdout.read_to_string(&mut output)?;
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut output)?;
    }
    let code = child.wait()?.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    Ok(Outcome::Ended { code, output })
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
