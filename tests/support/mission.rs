//! A mission of one's own for a test: directories, the daemon as a child, a client, its events.
//!
//! A test program that doesn't use all of it says `#[expect(dead_code, reason = "..")] mod mission;`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "test code outside of a test function")]

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use missiond::client::{Client, ClientError, Notifications};
use missiond::core::denied::Code;
use missiond::core::view::{MissionView, TaskView};
use missiond::proto::Method;
use missiond::proto::encode::Notification;
use missiond::proto::wire::{AuditPage, AuditRead, Empty, EventView};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long a test waits for what must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// The programs.
pub(crate) const MISSIOND: &str = env!("CARGO_BIN_EXE_missiond");
pub(crate) const MISSIONCTL: &str = env!("CARGO_BIN_EXE_missionctl");

/// A place for one mission, removed with everything in it.
pub(crate) struct Bench {
    root: tempfile::TempDir,
    pub(crate) variables: Vec<(String, String)>,
}

impl Bench {
    /// A mission file of the name `demo`; `body` follows its `[mission]` table's first keys.
    pub(crate) fn new(body: &str) -> Bench {
        let root = tempfile::Builder::new().prefix("md").tempdir().unwrap();
        let bench = Bench { root, variables: Vec::new() };
        for dir in ["run", "state", "ws"] {
            std::fs::create_dir(bench.path(dir)).unwrap();
        }
        bench.write(body);
        bench
    }

    /// Replaces the mission file.
    pub(crate) fn write(&self, body: &str) {
        let text = format!("[mission]\nname = \"demo\"\nworkspace = \"ws\"\n{body}");
        std::fs::write(self.path("mission.toml"), text).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state/missiond/demo")
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.path("run/missiond/demo")
    }

    /// What an agent wrote to standard output or error.
    pub(crate) fn log(&self, agent: &str, stream: &str) -> String {
        let path = self.state().join(format!("agents/{agent}/log/{stream}.log"));
        std::fs::read_to_string(path).unwrap_or_default()
    }

    /// A program with the environment of this mission.
    pub(crate) fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.root.path())
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("MISSION_")) {
            command.env_remove(name);
        }
        command
    }

    /// Starts the daemon in the foreground.
    pub(crate) fn start(&self, more: &[&str]) -> Daemon {
        let mut command = self.command(MISSIOND);
        command.arg("start").args(more).arg("mission.toml");
        Daemon::spawn(command)
    }

    /// `missionctl` as the operator: exit code, standard output, standard error.
    pub(crate) fn ctl(&self, args: &[&str]) -> (i32, String, String) {
        let output = self.command(MISSIONCTL).args(["-m", "demo"]).args(args).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
    }

    /// A connection as the operator.
    pub(crate) async fn operator(&self) -> Operator {
        let path = self.runtime().join("control.sock");
        let (client, notifications) = Client::connect(&path).await.unwrap();
        Operator { client, notifications, seen: Vec::new() }
    }
}

/// A daemon in the foreground.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    lines: Receiver<String>,
    pub(crate) seen: Vec<String>,
}

impl Daemon {
    pub(crate) fn spawn(mut command: Command) -> Daemon {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stderr = child.stderr.take().unwrap();
        let (send, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Daemon { child, lines, seen: Vec::new() }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of its progress that holds all of `parts`; one that came before counts.
    pub(crate) fn line(&mut self, parts: &[&str]) -> String {
        let fits = |line: &&String| parts.iter().all(|part| line.contains(part));
        if let Some(line) = self.seen.iter().find(fits) {
            return line.clone();
        }
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if parts.iter().all(|part| line.contains(part)) {
                        return line;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("no line with {parts:?} came; these did:\n{}", self.seen.join("\n"))
                }
            }
        }
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for its end: exit status, standard output, all lines of standard error.
    pub(crate) fn end(mut self) -> (ExitStatus, String, String) {
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let _ended = self.child.kill();
                    panic!("the daemon does not end:\n{}", self.seen.join("\n"))
                }
            }
        }
        let mut stdout = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        let status = self.child.wait().unwrap();
        (status, stdout, self.seen.join("\n"))
    }

    /// Waits for its end with this exit code; the summary.
    pub(crate) fn ends_with(self, code: i32) -> String {
        let (status, stdout, stderr) = self.end();
        assert_eq!(status.code(), Some(code), "{stderr}\n{stdout}");
        stdout
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Its shims see the end of their channels, and end their agents.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// A connection to the control socket, with the events of the log.
pub(crate) struct Operator {
    pub(crate) client: Client,
    notifications: Notifications,
    pub(crate) seen: Vec<EventView>,
}

impl Operator {
    /// A call that is carried out.
    pub(crate) async fn call<R: DeserializeOwned>(
        &self,
        method: Method,
        params: impl Serialize,
    ) -> R {
        match self.client.call(method, &params).await {
            Ok(reply) => reply,
            Err(error) => panic!("{method}: {error}"),
        }
    }

    /// A call that is refused: its code and sentence.
    pub(crate) async fn refused(&self, method: Method, params: impl Serialize) -> (Code, String) {
        let answer: Result<serde_json::Value, _> = self.client.call(method, &params).await;
        match answer {
            Err(ClientError::Refused(denied)) => (denied.code, denied.message),
            other => panic!("{method} is not refused: {other:?}"),
        }
    }

    pub(crate) async fn status(&self) -> MissionView {
        self.call(Method::MissionStatus, Empty {}).await
    }

    pub(crate) async fn task(&self, id: &str) -> TaskView {
        self.call(Method::TaskGet, serde_json::json!({ "task": id })).await
    }

    /// From now on events come in; those that are there already, too.
    pub(crate) async fn follow(&mut self) {
        let ask = AuditRead { since: None, limit: Some(1000), kinds: Vec::new(), follow: true };
        let page: AuditPage = self.call(Method::AuditRead, ask).await;
        self.seen.extend(page.events);
    }

    /// Waits for an event; those that came before count.
    pub(crate) async fn event(
        &mut self,
        kind: &str,
        wanted: impl Fn(&EventView) -> bool,
    ) -> EventView {
        let fits = |event: &EventView| event.kind == kind && wanted(event);
        if let Some(event) = self.seen.iter().find(|event| fits(event)) {
            return event.clone();
        }
        loop {
            let next = tokio::time::timeout(DEADLINE, self.notifications.next()).await;
            match next {
                Ok(Some(Notification::Event(event))) => {
                    self.seen.push((*event).clone());
                    if fits(&event) {
                        return *event;
                    }
                }
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => {
                    let seen: Vec<_> = self
                        .seen
                        .iter()
                        .map(|e| format!("{} {} {}", e.seq, e.kind, e.data.get()))
                        .collect();
                    panic!("no {kind} came; these events did:\n{}", seen.join("\n"))
                }
            }
        }
    }
}

/// Whether `data` of an event holds this text.
pub(crate) fn holds(text: &'static str) -> impl Fn(&EventView) -> bool {
    move |event| event.data.get().contains(text)
}

/// The processes whose environment or command line holds `mark`.
pub(crate) fn processes(mark: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let read = |name: &str| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let text = [read("cmdline"), read("environ")].concat();
        if text.windows(mark.len()).any(|window| window == mark.as_bytes()) {
            found.push(pid);
        }
    }
    found
}

/// Waits until a process that may not be our child has ended.
pub(crate) fn await_end(pid: u32) {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let Ok(pidfd) = missiond::sys::process::pidfd(pid) else { return };
    let timeout = PollTimeout::try_from(DEADLINE).unwrap();
    let count = poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], timeout).unwrap();
    assert_eq!(count, 1, "process {pid} has not ended");
}

/// The text of a file that must be there.
pub(crate) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
