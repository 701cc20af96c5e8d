//! The daemon under test: its directories, its start, its death, and the proof that nothing is left.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use missiond::sys::process::{self, Which};
use missiond::sys::{clock, procfs};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Failure, SERVICES};

/// How long the processes of a killed daemon may take to be gone. The claim is one second; a busy
/// machine gets more.
const GONE_WITHIN: Duration = Duration::from_secs(10);
/// How long a start may take.
const UP_WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    pub(crate) root: PathBuf,
}

impl Rig {
    /// Makes the directories, copies of the programs, and the mission file.
    pub(crate) fn new(programs: &Path) -> Result<Rig, Failure> {
        let root = std::env::temp_dir().join(format!("missiond-crash-{}", std::process::id()));
        std::fs::create_dir(&root)?;
        let rig = Rig { root: root.canonicalize()? };
        for dir in ["bin", "ws", "run", "state"] {
            std::fs::create_dir(rig.path(dir))?;
        }
        for name in ["missiond", "missionctl"] {
            std::fs::copy(programs.join(name), rig.path("bin").join(name))?;
        }
        std::fs::copy(std::env::current_exe()?, rig.path("bin/agent"))?;
        let mut text = "[mission]\nname = \"crash\"\nworkspace = \"ws\"\nisolation = 1\n\
             until = \"stopped\"\n[limits]\nhandoff_request = \"2s\"\nhandoff_drain = \"2s\"\n\
             handoff_complete = \"2s\"\n"
            .to_owned();
        for name in SERVICES {
            text += &format!(
                "[agents.{name}]\nrole = \"write\"\ncommand = [\"bin/agent\", \"crash-agent\"]\n\
                 read = [\"bin\"]\nrestart = {{ on = \"always\", max = 1000, within = \"60s\" }}\n"
            );
        }
        text += "[agents.batch]\nrole = \"write\"\nmode = \"task\"\n\
                 command = [\"sh\", \"-c\", \"cat > /dev/null; echo 1\"]\n";
        std::fs::write(rig.path("mission.toml"), text)?;
        Ok(rig)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/missiond/crash/control.sock")
    }

    pub(crate) fn start(&self) -> Result<Daemon, Failure> {
        let mut child = Command::new(self.path("bin/missiond"))
            .args(["start", "mission.toml"])
            .current_dir(&self.root)
            .env("HOME", &self.root)
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let stderr = child.stderr.take().ok_or("no standard error")?;
        let (send, lines) = unbounded_channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Daemon { child, lines, seen: Vec::new(), over: false })
    }
}

/// A running daemon.
pub(crate) struct Daemon {
    child: Child,
    lines: UnboundedReceiver<String>,
    seen: Vec<String>,
    /// Reaped.
    over: bool,
}

impl Daemon {
    /// Waits until it says that the mission has started.
    pub(crate) async fn up(&mut self) -> Result<(), Failure> {
        let wait = async {
            while let Some(line) = self.lines.recv().await {
                let up = line.contains("mission") && line.contains("started");
                self.seen.push(line);
                if up {
                    return true;
                }
            }
            false
        };
        match tokio::time::timeout(UP_WITHIN, wait).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(format!("the daemon ended:\n{}", self.seen.join("\n")).into()),
            Err(_) => Err(format!("the daemon does not come up:\n{}", self.seen.join("\n")).into()),
        }
    }

    /// `kill -9`, then everything it started must end by itself. Returns how long that took.
    pub(crate) fn kill(mut self) -> Result<Duration, Failure> {
        self.child.kill()?;
        self.over = true;
        all_gone(GONE_WITHIN)
    }

    /// It ends by itself, and everything with it.
    pub(crate) fn ended(mut self) -> Result<Duration, Failure> {
        self.over = true;
        all_gone(UP_WITHIN)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // A test that has failed leaves nothing behind. After `kill` and `ended` the pid is reaped, and
        // might be another's by now.
        if !self.over {
            let _ended = self.child.kill();
        }
    }
}

/// Waits until this process has no child left. It is a subreaper, so that whoever loses its parent
/// comes here: no child means that nothing is left of the mission.
fn all_gone(within: Duration) -> Result<Duration, Failure> {
    let began = clock::since_boot();
    let (send, gone) = mpsc::channel();
    std::thread::spawn(move || {
        while process::reap_blocking(Which::Any).is_ok() {}
        let _ = send.send(());
    });
    match gone.recv_timeout(within) {
        Ok(()) => Ok(clock::since_boot().saturating_sub(began)),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            let left = procfs::descendants(process::own_pid(), &|_| false)?;
            let left: Vec<_> = left.iter().map(|stat| stat.pid).collect();
            Err(format!("processes {left:?} are left {within:?} after the daemon's end").into())
        }
    }
}
