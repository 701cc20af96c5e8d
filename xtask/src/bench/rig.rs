//! The contestants' ground: a directory on the disk of the target directory, and a running daemon.

use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use super::wire::{Speaks, Target};

const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that is removed at the end; under the target directory, so that it is on a disk.
pub(crate) struct Ground(PathBuf);

impl Ground {
    pub(crate) fn new(programs: &Path) -> io::Result<Ground> {
        // Short: a Unix socket's path has at most 107 bytes.
        let target = programs.parent().unwrap_or(programs);
        let dir = target.join(format!("b{}", std::process::id()));
        std::fs::create_dir_all(&dir)?;
        Ok(Ground(dir))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A daemon in the foreground; killed when dropped, and its agents with it.
pub(crate) struct Daemon {
    child: Child,
    pub(crate) target: Target,
}

impl Daemon {
    /// Writes a mission file and starts it; returns when its progress shows a line with `up`.
    pub(crate) fn start(
        programs: &Path,
        dir: &Path,
        body: &str,
        mut up: impl FnMut(&str) -> bool,
    ) -> io::Result<Daemon> {
        for name in ["run", "state", "ws"] {
            std::fs::create_dir_all(dir.join(name))?;
        }
        let text =
            format!("[mission]\nname = \"bench\"\nworkspace = \"ws\"\nuntil = \"stopped\"\n{body}");
        std::fs::write(dir.join("mission.toml"), text)?;
        let mut child = Command::new(programs.join("missiond"))
            .args(["start", "mission.toml"])
            .current_dir(dir)
            .env("XDG_RUNTIME_DIR", dir.join("run"))
            .env("XDG_STATE_HOME", dir.join("state"))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let progress = child.stderr.take().ok_or_else(|| io::Error::other("no progress"))?;
        let (send, lines) = mpsc::channel();
        // Reads to the end, so that the daemon never waits for its reader.
        std::thread::spawn(move || {
            for line in BufReader::new(progress).lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let socket = dir.join("run/missiond/bench/control.sock");
        let name = "missiond".to_owned();
        let pid = child.id();
        let daemon =
            Daemon { child, target: Target { name, speaks: Speaks::Missiond, socket, pid } };
        let mut seen = String::new();
        loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) if up(&line) => return Ok(daemon),
                Ok(line) => seen = seen + &line + "\n",
                Err(_) => {
                    return Err(io::Error::other(format!("missiond does not start:\n{seen}")));
                }
            }
        }
    }

    /// The process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it in order, with a last snapshot.
    pub(crate) fn stop(mut self) -> io::Result<()> {
        let pid = i32::try_from(self.child.id()).map_err(io::Error::other)?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)?;
        self.child.wait().map(drop)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Ends a child and reaps it.
pub(crate) fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// Waits until a server listens on `socket` in `dir`: woken by inotify, not by trying again and again.
pub(crate) fn socket_is_up(dir: &Path, socket: &Path, child: &mut Child) -> io::Result<()> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
    use std::os::fd::AsFd;

    let events = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    events.add_watch(
        dir,
        AddWatchFlags::IN_CREATE | AddWatchFlags::IN_ATTRIB | AddWatchFlags::IN_MODIFY,
    )?;
    loop {
        if std::os::unix::net::UnixStream::connect(socket).is_ok() {
            return Ok(());
        }
        if let Some(status) = child.try_wait()? {
            return Err(io::Error::other(format!("the server ended: {status}")));
        }
        let timeout = PollTimeout::try_from(PATIENCE).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)], timeout)? == 0 {
            return Err(io::Error::other("the server does not listen"));
        }
        let _ = events.read_events();
    }
}
