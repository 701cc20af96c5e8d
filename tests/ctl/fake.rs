//! A daemon that says what a test tells it to, and the program under test.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code outside of a test function"
)]

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use missiond::proto::denied::{Code, Denied};
use missiond::proto::{self, encode};
use serde_json::{Value, json};

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    /// The connection, from 1.
    pub(crate) connection: usize,
    pub(crate) method: String,
    pub(crate) params: Value,
    pub(crate) key: Option<String>,
}

/// What the fake daemon does on a request.
pub(crate) enum Act {
    Reply(Value),
    Refuse(Code, &'static str),
    Notify(&'static str, Value),
    HangUp,
}

type Script = dyn Fn(&Seen) -> Vec<Act> + Send + Sync;

#[derive(Default)]
struct Record {
    seen: Mutex<Vec<Seen>>,
    more: Condvar,
    open: Mutex<Vec<UnixStream>>,
}

/// A fake daemon; it ends with the test.
pub(crate) struct Fake {
    pub(crate) dir: tempfile::TempDir,
    record: Arc<Record>,
}

pub(crate) const OPERATOR: [&str; 6] =
    ["read", "write", "execute", "handoff", "audit", "manage_roles"];
pub(crate) const WRITER: [&str; 3] = ["read", "write", "execute"];

impl Fake {
    /// A daemon of mission `m` that greets everyone as one with `permissions`, and else follows `script`.
    pub(crate) fn new(
        permissions: &[&str],
        script: impl Fn(&Seen) -> Vec<Act> + Send + Sync + 'static,
    ) -> Fake {
        let dir = tempfile::tempdir().unwrap();
        let runtime = dir.path().join("missiond/m");
        std::fs::create_dir_all(&runtime).unwrap();
        let listener = UnixListener::bind(runtime.join("control.sock")).unwrap();
        let record = Arc::new(Record::default());
        let is_agent = permissions.len() < OPERATOR.len();
        let hello = json!({
            "version": 1, "features": [], "mission": "m", "pid": 4,
            "you": if is_agent { "writer" } else { "operator" },
            "permissions": permissions,
            "agent": is_agent.then(|| agent("writer")),
        });
        let script: Arc<Script> = Arc::new(script);
        let shared = Arc::clone(&record);
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let (shared, script, hello) =
                    (Arc::clone(&shared), Arc::clone(&script), hello.clone());
                let stream = stream.unwrap();
                shared.open.lock().unwrap().push(stream.try_clone().unwrap());
                std::thread::spawn(move || serve(stream, number + 1, &shared, &*script, &hello));
            }
        });
        Fake { dir, record }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("missiond/m/control.sock")
    }

    /// The requests so far, without `hello`.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let seen = self.record.seen.lock().unwrap();
        seen.iter().filter(|seen| seen.method != "hello").cloned().collect()
    }

    /// Waits until a request of this method has come.
    pub(crate) fn wait_for(&self, method: &str) {
        let seen = self.record.seen.lock().unwrap();
        let bound = Duration::from_secs(20);
        let missing = |seen: &mut Vec<Seen>| !seen.iter().any(|seen| seen.method == method);
        let waited = self.record.more.wait_timeout_while(seen, bound, missing).unwrap();
        assert!(!waited.1.timed_out(), "no {method} came");
    }

    /// Says something on every open connection.
    pub(crate) fn notify(&self, method: &str, params: &Value) {
        let line = json!({"jsonrpc": "2.0", "method": method, "params": params});
        for stream in self.record.open.lock().unwrap().iter_mut() {
            let _ = writeln!(stream, "{line}");
        }
    }

    /// Ends every connection, and with `for_good` listens no more.
    pub(crate) fn hang_up(&self, for_good: bool) {
        if for_good {
            std::fs::remove_file(self.socket()).unwrap();
        }
        for stream in self.record.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// `missionctl` as the operator.
    pub(crate) fn operator(&self, args: &[&str]) -> Command {
        let mut command = missionctl(args);
        command.env("XDG_RUNTIME_DIR", self.dir.path()).current_dir(self.dir.path());
        command
    }

    /// `missionctl` inside agent `writer`.
    pub(crate) fn agent(&self, args: &[&str]) -> Command {
        let mut command = missionctl(args);
        command
            .env("MISSION_SOCKET", self.socket())
            .env("MISSION_NAME", "m")
            .current_dir(self.dir.path());
        command
    }
}

fn serve(stream: UnixStream, connection: usize, record: &Record, script: &Script, hello: &Value) {
    let mut to = stream.try_clone().unwrap();
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { return };
        let frame = proto::parse(line.as_bytes()).expect("what a real daemon would take");
        let request: Value = serde_json::from_str(&line).unwrap();
        let seen = Seen {
            connection,
            method: request["method"].as_str().unwrap().to_owned(),
            params: request["params"].clone(),
            key: request["key"].as_str().map(str::to_owned),
        };
        let acts = match seen.method.as_str() {
            "hello" => vec![Act::Reply(hello.clone())],
            _ => script(&seen),
        };
        record.seen.lock().unwrap().push(seen);
        record.more.notify_all();
        for act in acts {
            let bytes = match act {
                Act::Reply(value) => encode::reply(&frame.id, &value).unwrap(),
                Act::Refuse(code, message) => {
                    encode::refusal(Some(&frame.id), &Denied::new(code, message)).unwrap()
                }
                Act::Notify(method, params) => {
                    let line = json!({"jsonrpc": "2.0", "method": method, "params": params});
                    format!("{line}\n").into_bytes()
                }
                Act::HangUp => {
                    let _ = to.shutdown(std::net::Shutdown::Both);
                    return;
                }
            };
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
    }
}

fn missionctl(args: &[&str]) -> Command {
    program(env!("CARGO_BIN_EXE_missionctl"), args)
}

/// A program, in an environment of its own, bounded in time.
pub(crate) fn program(path: &str, args: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["-k", "1", "60", path])
        .args(args)
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .stdin(Stdio::null());
    command
}

/// How it ended: exit code, output, errors.
pub(crate) fn outcome(command: &mut Command) -> (i32, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// Runs with text on standard input.
pub(crate) fn outcome_with_input(command: &mut Command, input: &str) -> (i32, String, String) {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// The lines of a running program, one at a time.
pub(crate) struct Running {
    pub(crate) child: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Running {
    pub(crate) fn new(command: &mut Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Running { child, lines }
    }

    pub(crate) fn line(&mut self) -> String {
        self.lines.next().expect("one more line").unwrap()
    }

    /// Its exit code and errors, once it has ended by itself.
    pub(crate) fn end(self) -> (i32, String) {
        drop(self.lines);
        let output = self.child.wait_with_output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

impl Running {
    pub(crate) fn stop(mut self) {
        // The bounding `timeout` hands the signal on to the program.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.child.wait().unwrap();
    }
}

pub(crate) fn agent(name: &str) -> Value {
    json!({
        "name": name, "uid": 3, "role": "write", "permissions": WRITER, "capabilities": ["rust"],
        "mode": "service", "level": 1, "state": "running", "since": 1_000, "phase": "EXECUTING",
        "pid": 4242, "incarnation": 2, "restarts": 1, "last_exit": {"exited": 3},
        "tasks": ["task-1"], "checkpoint": null, "heard": null, "inbox": 2, "waits_for": null,
        "gaps": [],
    })
}

pub(crate) fn task(id: &str, state: &str, epoch: u64) -> Value {
    json!({
        "id": id, "title": "fix the parser", "state": state, "owner": "writer", "reserved": null,
        "epoch": epoch, "progress": 40, "note": null, "after": [], "needs": [], "deadline": null,
        "attempts": 0, "max_attempts": 3, "checkpoint": null, "handoff": null, "reason": null,
        "created": 1_000, "started": null, "settled": null, "by": "operator", "waits_for": null,
        "data_at": null, "result_at": null,
    })
}

pub(crate) fn handoff(state: &str, until: Option<i64>) -> Value {
    json!({
        "id": "h-17", "task": "task-1", "from": "writer", "to": "reviewer", "state": state,
        "by": "operator", "requested": 1_000, "until": until, "checkpoint": null, "epoch": null,
        "reason": null, "waits_for": null,
    })
}

pub(crate) fn event(seq: u64, kind: &str, data: Value) -> Value {
    json!({"seq": seq, "at": 1_000 + 10 * (seq - 17), "kind": kind, "actor": "daemon", "data": data})
}

pub(crate) fn message(seq: u64, from: &str, kind: &str, content: Value) -> Value {
    json!({
        "id": format!("m-{seq}"), "seq": seq, "type": kind, "from": from, "to": ["writer"],
        "at": 1_000, "content": content,
    })
}

pub(crate) fn delivery(seq: u64, from: &str, kind: &str, content: Value) -> Value {
    json!({
        "subscription": "inbox", "message": message(seq, from, kind, content),
        "redelivered": false, "ephemeral": false,
    })
}

/// A time in the future, in milliseconds.
pub(crate) fn soon() -> i64 {
    jiff::Timestamp::now().as_millisecond() + 60_000
}

/// Where a file lies that a test works with.
pub(crate) fn path(dir: &Path, name: &str) -> String {
    dir.join(name).display().to_string()
}
