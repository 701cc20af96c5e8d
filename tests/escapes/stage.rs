//! A mission of one's own for an escape: directories, the daemon, and puppets for agents.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code outside of a test function")]

use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use missiond::sys::process::{self, Pid, Which};
use missiond::sys::{clock, procfs};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use crate::bus::Bus;
use crate::deed::Ready;
use crate::puppet::Puppet;

/// How long anything may take that must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(40);

/// What a quiet machine does within `limit` takes longer where others want the processors as well.
pub(crate) fn under_load(limit: Duration) -> Duration {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap();
    let load: f64 = load.split(' ').next().unwrap().parse().unwrap();
    let processors = std::thread::available_parallelism().unwrap().get();
    limit.mul_f64((load / f64::from(u32::try_from(processors).unwrap())).clamp(1.0, 20.0))
}

/// Directories and the mission file.
pub(crate) struct Stage {
    root: tempfile::TempDir,
    body: String,
}

/// The level that the agents of this process's row run at.
pub(crate) fn level() -> u8 {
    std::env::var(crate::LEVEL).map_or(1, |level| level.parse().unwrap())
}

/// The error of a path that isn't to be opened: level 2 doesn't even show it.
pub(crate) fn shut() -> i32 {
    if level() == 1 { libc::EACCES } else { libc::ENOENT }
}

impl Stage {
    pub(crate) fn new() -> Stage {
        let mut builder = tempfile::Builder::new();
        builder.prefix("esc");
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute());
        // Not below /tmp, which is every level-2 agent's own.
        let root = match home.filter(|_| level() > 1) {
            Some(home) => builder.tempdir_in(home).unwrap(),
            None => builder.tempdir().unwrap(),
        };
        let stage = Stage { root, body: String::new() };
        for name in ["run", "state", "ws", "rc"] {
            std::fs::create_dir(stage.path(name)).unwrap();
        }
        stage
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().canonicalize().unwrap().join(name)
    }

    /// An agent that does what the test says.
    pub(crate) fn agent(&mut self, name: &str, role: &str, more: &str) -> Puppet {
        let exe = std::env::current_exe().unwrap().canonicalize().unwrap();
        let rc = self.path("rc").join(name);
        write!(
            self.body,
            "[agents.{name}]\nrole = {role:?}\ncommand = [{exe:?}, {:?}, {rc:?}]\nread = [{:?}]\n\
             write = [{rc:?}]\nrestart = \"never\"\n{more}\n",
            crate::ATTACKER,
            exe.parent().unwrap(),
        )
        .unwrap();
        Puppet::new(name, &rc)
    }

    /// More text for the mission file.
    pub(crate) fn more(&mut self, text: &str) {
        self.body.push_str(text);
    }

    pub(crate) fn control(&self) -> PathBuf {
        self.path("run/missiond/demo/control.sock")
    }

    pub(crate) fn socket(&self, agent: &str) -> PathBuf {
        self.path("run/missiond/demo/agents").join(agent).join("bus.sock")
    }

    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.path("state/missiond/demo").join(name)
    }

    pub(crate) fn operator(&self) -> Bus {
        Bus::operator(&self.control())
    }

    /// Waits until an agent runs. Its process and its shim as the host calls them.
    pub(crate) fn ready(&self, agent: &mut Puppet) -> Ready {
        let inside = agent.ready();
        if level() == 1 {
            return inside;
        }
        // Ids inside are of its own namespace; the daemon knows the others once it has said so.
        let pid = std::cell::Cell::new(None);
        self.event("agent_started", |_| {
            let agents = self.operator().call("agent.list", &serde_json::json!({}));
            let list = agents.as_array().unwrap();
            let found = list.iter().find(|view| view["name"] == agent.name.as_str());
            pid.set(found.and_then(|view| view["pid"].as_u64()));
            pid.get().is_some()
        });
        let pid = Pid::try_from(pid.get().unwrap()).unwrap();
        let init = procfs::stat(pid).unwrap().parent;
        Ready { pid, shim: procfs::stat(init).unwrap().parent, ..inside }
    }

    /// `missiond run` in the workspace at level 2.
    pub(crate) fn run(&self, options: &[&str], command: &[&str]) -> std::process::Output {
        let mut run = self.command(env!("CARGO_BIN_EXE_missiond"));
        run.current_dir(self.path("ws")).arg("run").args(options).arg("--").args(command);
        run.output().unwrap()
    }

    /// Waits for an event of the log.
    pub(crate) fn event(&self, kind: &str, fits: impl Fn(&Value) -> bool) -> Value {
        Bus::event(&self.control(), kind, fits)
    }

    /// Writes the mission file.
    pub(crate) fn write(&self) {
        let head = format!(
            "[mission]\nname = \"demo\"\nworkspace = \"ws\"\nuntil = \"stopped\"\nisolation = {}\n\
             durability = \"process\"\n",
            level()
        );
        std::fs::write(self.path("mission.toml"), head + &self.body).unwrap();
    }

    /// A program with this mission's environment and nothing else of ours.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        let home = std::env::var_os("HOME").unwrap_or_else(|| "/".into());
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        command
            .env_clear()
            .envs([("HOME", home), ("PATH", path), ("LANG", "C.UTF-8".into())])
            .envs([("XDG_RUNTIME_DIR", self.path("run")), ("XDG_STATE_HOME", self.path("state"))])
            .current_dir(self.root.path())
            .stdin(Stdio::null());
        command
    }

    /// `missiond start`, not yet started.
    pub(crate) fn daemon(&self) -> Command {
        self.write();
        let mut command = self.command(env!("CARGO_BIN_EXE_missiond"));
        command.args(["start", "mission.toml"]);
        command
    }

    pub(crate) fn start(&self) -> Daemon {
        self.spawn(self.daemon())
    }

    /// Starts what is to become the daemon.
    pub(crate) fn spawn(&self, mut command: Command) -> Daemon {
        let log = self.path("daemon.err");
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.stdout(Stdio::null()).stderr(file);
        Daemon { child: command.spawn().unwrap(), log }
    }
}

/// The running daemon.
pub(crate) struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// One whose output goes elsewhere.
    pub(crate) fn of(child: Child) -> Daemon {
        Daemon { child, log: PathBuf::new() }
    }

    pub(crate) fn pid(&self) -> Pid {
        self.child.id()
    }

    /// The launcher: the daemon's child that is nobody's shim.
    pub(crate) fn launcher(&self, shims: &[Pid]) -> Pid {
        let mut children = procfs::all().unwrap();
        children.retain(|stat| stat.parent == self.pid() && !shims.contains(&stat.pid));
        assert_eq!(children.len(), 1, "children of the daemon that are no shims: {children:?}");
        children[0].pid
    }

    /// A field of /proc/PID/status in KiB.
    pub(crate) fn memory_kib(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub(crate) fn kill(&mut self) {
        let _ended_before = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Ends it in order.
    pub(crate) fn stop(&mut self) -> ExitStatus {
        let pidfd = process::pidfd(self.pid()).unwrap();
        process::signal(pidfd.as_fd(), libc::SIGTERM).unwrap();
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        assert!(ends_within(self.pid(), DEADLINE), "the daemon does not stop:\n{log}");
        self.child.wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ended_before = self.child.kill();
        let _status = self.child.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let from = log.len().saturating_sub(4000);
            eprintln!("the daemon said:\n{}", log.get(from..).unwrap_or(&log));
        }
    }
}

/// Whether `fd` becomes readable within `limit`.
pub(crate) fn readable_within(fd: impl AsFd, limit: Duration) -> bool {
    let timeout = PollTimeout::try_from(limit).unwrap();
    poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout).unwrap() > 0
}

/// Whether a process ends within `limit`.
pub(crate) fn ends_within(pid: Pid, limit: Duration) -> bool {
    match process::pidfd(pid) {
        Ok(pidfd) => readable_within(&pidfd, limit),
        Err(_) => true,
    }
}

/// Waits until nothing lives below this process any more: this program is the subreaper of all that
/// it started. Returns how long it took, or what lives still.
pub(crate) fn nothing_lives_within(limit: Duration) -> Result<Duration, Vec<procfs::Stat>> {
    let start = clock::since_boot();
    loop {
        let all = procfs::descendants(process::own_pid(), &|_| false).unwrap();
        let (dead, living): (Vec<_>, Vec<_>) = all.into_iter().partition(|stat| stat.state == b'Z');
        for stat in dead.iter().filter(|stat| stat.parent == process::own_pid()) {
            let _reaped = process::reap(Which::One(stat.pid));
        }
        let took = clock::since_boot() - start;
        let Some(first) = living.first() else {
            return Ok(took);
        };
        if took >= limit || !ends_within(first.pid, limit - took) {
            return Err(living);
        }
    }
}

/// All files below a directory, with their types, sizes left out.
pub(crate) fn listing(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display())) {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            found.push(entry.path().strip_prefix(root).unwrap().display().to_string());
            if kind.is_dir() {
                open.push(entry.path());
            }
        }
    }
    found.sort();
    found
}
