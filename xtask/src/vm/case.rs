//! What a case stands on, inside of the machine: a user, a mission of that user, and waits for what
//! happens there, each with a deadline.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use nix::unistd::{Gid, Uid, User, chown, mkfifo};
use serde_json::Value;

use crate::crash::Failure;

/// What a case comes to.
pub(super) type Outcome = Result<(), Failure>;

/// How long a case waits for what must happen; the machine is slow.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);
/// Where the programs are.
pub(super) const PROGRAMS: &str = "/payload/bin";

/// Fails a case if something isn't so.
pub(super) fn check(holds: bool, what: impl FnOnce() -> String) -> Outcome {
    if holds { Ok(()) } else { Err(Failure::from(what())) }
}

/// An ordinary user of the machine.
pub(super) struct Person {
    name: &'static str,
    uid: Uid,
    gid: Gid,
    home: PathBuf,
}

impl Person {
    pub(super) fn named(name: &'static str) -> Result<Person, Failure> {
        let user = User::from_name(name).map_err(io::Error::from)?;
        let user = user.ok_or_else(|| Failure::from(format!("no user {name}")))?;
        Ok(Person { name, uid: user.uid, gid: user.gid, home: user.dir })
    }

    /// A program as that user, with nothing of our environment. The user's runtime directory is named
    /// if it is there.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", self.name, "--regid", self.name, "--init-groups", program])
            .env_clear()
            .env("HOME", &self.home)
            .env("USER", self.name)
            .env("LANG", "C.UTF-8")
            .env("PATH", format!("{PROGRAMS}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"))
            .current_dir(&self.home)
            .stdin(Stdio::null());
        let runtime = PathBuf::from(format!("/run/user/{}", self.uid));
        // Without a login there is none.
        let own = PathBuf::from("/run").join(self.name);
        if let Some(runtime) = [runtime, own].iter().find(|dir| dir.is_dir()) {
            command.env("XDG_RUNTIME_DIR", runtime);
        }
        command
    }

    /// Runs a program that must succeed; what it printed.
    pub(super) fn runs(&self, line: &[&str]) -> Result<String, Failure> {
        let Some((program, arguments)) = line.split_first() else { return Ok(String::new()) };
        let output = self.command(program).args(arguments).output()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        check(output.status.success(), || {
            format!("{}: {}\n{}", line.join(" "), output.status, both(&output))
        })?;
        Ok(text)
    }

    fn own(&self, path: &Path) -> Outcome {
        chown(path, Some(self.uid), Some(self.gid)).map_err(io::Error::from)?;
        Ok(())
    }
}

/// Standard output and error of a program that has ended.
pub(super) fn both(output: &Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).trim().to_owned();
    format!("{}\n{}", text(&output.stdout), text(&output.stderr))
}

/// A mission of a user, below the home directory. Agents speak to the test through the fifo `tell` of
/// the workspace, and wait for it at the fifo `go`.
pub(super) struct Bed<'a> {
    pub(super) person: &'a Person,
    pub(super) name: &'static str,
    pub(super) dir: PathBuf,
    go: File,
    told: Receiver<String>,
    heard: Vec<String>,
}

impl<'a> Bed<'a> {
    /// `body` follows the first keys of the `[mission]` table.
    pub(super) fn new(
        person: &'a Person,
        name: &'static str,
        body: &str,
    ) -> Result<Bed<'a>, Failure> {
        let dir = person.home.join(name);
        let workspace = dir.join("ws");
        fs::create_dir_all(&workspace)?;
        fs::write(
            dir.join("mission.toml"),
            format!("[mission]\nname = \"{name}\"\nworkspace = \"ws\"\n{body}"),
        )?;
        let fifo = |name: &str| -> Result<File, Failure> {
            let path = workspace.join(name);
            mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600))
                .map_err(io::Error::from)?;
            person.own(&path)?;
            // For both: so neither an open nor a read waits for another end.
            Ok(OpenOptions::new().read(true).write(true).open(&path)?)
        };
        let (tell, go) = (fifo("tell")?, fifo("go")?);
        for path in [&dir, &workspace, &dir.join("mission.toml")] {
            person.own(path)?;
        }
        let (send, told) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(tell).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Bed { person, name, dir, go, told, heard: Vec::new() })
    }

    /// Waits for a line of an agent that begins like this; each counts once.
    pub(super) fn hears(&mut self, beginning: &str) -> Result<String, Failure> {
        if let Some(at) = self.heard.iter().position(|line| line.starts_with(beginning)) {
            return Ok(self.heard.remove(at));
        }
        loop {
            match self.told.recv_timeout(DEADLINE) {
                Ok(line) if line.starts_with(beginning) => return Ok(line),
                Ok(line) => self.heard.push(line),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(Failure::from(format!(
                        "no agent says `{beginning}`; said was {:?}",
                        self.heard
                    )));
                }
            }
        }
    }

    /// Lets whoever waits at the other fifo go on.
    pub(super) fn go(&mut self) -> Outcome {
        Ok(self.go.write_all(b"go\n")?)
    }

    /// Where the mission keeps what outlives it.
    pub(super) fn state(&self) -> Result<PathBuf, Failure> {
        Ok(self.person.home.join(".local/state/missiond").join(self.name).canonicalize()?)
    }

    pub(super) fn file(&self) -> String {
        self.dir.join("mission.toml").display().to_string()
    }

    /// `missionctl` as the operator.
    pub(super) fn ctl(&self, line: &[&str]) -> Result<Output, Failure> {
        let mut command = self.person.command("missionctl");
        Ok(command.args(["-m", self.name]).args(line).output()?)
    }

    /// What it answers as JSON.
    pub(super) fn asks(&self, line: &[&str]) -> Result<Value, Failure> {
        let output = self.ctl(&[line, &["-o", "json"]].concat())?;
        check(output.status.success(), || format!("missionctl {line:?}: {}", both(&output)))?;
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// An agent as `status` shows it.
    pub(super) fn agent(&self, name: &str) -> Result<Value, Failure> {
        let status = self.asks(&["status"])?;
        let all = status["agents"].as_array().cloned().unwrap_or_default();
        all.into_iter()
            .find(|agent| agent["name"] == name)
            .ok_or_else(|| Failure::from(format!("no agent {name} in {status}")))
    }

    /// The daemon in the foreground, up when its progress says so.
    pub(super) fn start(&self, mut command: Command) -> Result<Daemon, Failure> {
        let mut child =
            command.current_dir(&self.dir).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let lines = lines_of(child.stderr.take());
        let mut daemon = Daemon { child, lines, seen: Vec::new() };
        daemon.line(&["mission", "started"])?;
        Ok(daemon)
    }

    /// `missiond start`, as it is typed.
    pub(super) fn typed(&self) -> Command {
        let mut command = self.person.command("missiond");
        command.args(["start", "mission.toml"]);
        command
    }

    /// The same in a session of a login, whose control group belongs to root.
    pub(super) fn in_a_session(&self) -> Command {
        let mut command = Command::new("systemd-run");
        command
            .args(["--quiet", "--pipe", "--wait", "--collect", "-p", "PAMName=login"])
            .arg(format!("--uid={}", self.person.name))
            .arg(format!("--working-directory={}", self.dir.display()))
            .arg(format!("--setenv=PATH={PROGRAMS}:/usr/bin:/bin"))
            .args([&format!("{PROGRAMS}/missiond"), "start", "mission.toml"])
            .stdin(Stdio::null());
        command
    }

    /// Waits for an event of the log, those that came before included.
    pub(super) fn event(&self, kind: &str, holds: &[&str]) -> Result<Value, Failure> {
        let mut child = self
            .person
            .command("missionctl")
            .args(["-m", self.name, "events", "--since", "0", "-f", "-o", "jsonl"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let lines = lines_of(child.stdout.take());
        let mut seen = Vec::new();
        let found = loop {
            match lines.recv_timeout(DEADLINE) {
                Ok(line) => {
                    let event: Value = serde_json::from_str(&line)?;
                    if event["kind"] == kind && holds.iter().all(|part| line.contains(part)) {
                        break Ok(event);
                    }
                    seen.push(line);
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    break Err(Failure::from(format!(
                        "no {kind} with {holds:?}; these were:\n{}",
                        seen.join("\n")
                    )));
                }
            }
        };
        let _over = child.kill();
        child.wait()?;
        found
    }

    /// The processes of this mission, wherever they are: their environment names it.
    pub(super) fn processes(&self) -> Result<Vec<u32>, Failure> {
        let mark = format!("MISSION_NAME={}\0", self.name);
        processes(|path| {
            let text = fs::read(path.join("environ")).unwrap_or_default();
            text.windows(mark.len()).any(|window| window == mark.as_bytes())
        })
    }
}

/// The processes that something holds of, by their directory in `/proc`.
pub(super) fn processes(holds: impl Fn(&Path) -> bool) -> Result<Vec<u32>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let path = entry?.path();
        let pid = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        if let Some(pid) = pid.filter(|_| holds(&path)) {
            found.push(pid);
        }
    }
    Ok(found)
}

fn lines_of(stream: Option<impl io::Read + Send + 'static>) -> Receiver<String> {
    let (send, lines) = channel();
    if let Some(stream) = stream {
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                if send.send(line).is_err() {
                    break;
                }
            }
        });
    }
    lines
}

/// A daemon that was started by hand.
pub(super) struct Daemon {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Daemon {
    /// Waits for a line of its progress with all of `parts`; one that came before counts.
    pub(super) fn line(&mut self, parts: &[&str]) -> Result<String, Failure> {
        let fits = |line: &String| parts.iter().all(|part| line.contains(part));
        if let Some(line) = self.seen.iter().find(|line| fits(line)) {
            return Ok(line.clone());
        }
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => {
                    self.seen.push(line.clone());
                    if fits(&line) {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    return Err(Failure::from(format!(
                        "no line with {parts:?}; these came:\n{}",
                        self.seen.join("\n")
                    )));
                }
            }
        }
    }

    /// `missionctl stop`, then waits for its end.
    pub(super) fn stop(mut self, bed: &Bed<'_>) -> Outcome {
        let output = bed.ctl(&["stop"])?;
        check(output.status.success(), || format!("stop: {}", both(&output)))?;
        self.child.wait()?;
        let left = bed.processes()?;
        check(left.is_empty(), || format!("processes {left:?} are left"))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Its shims see the end of their channels, and end their agents.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
