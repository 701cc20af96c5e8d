//! Starting the child, with strace on one of its threads.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use super::script::{DIR, SCRIPT};

/// No wait is longer.
const DEADLINE: Duration = Duration::from_secs(30);

/// A running child. It is killed when this is dropped.
pub(crate) struct Running {
    child: Child,
    lines: Receiver<String>,
    pub(crate) thread: i32,
}

/// What became of a child.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) said: Vec<String>,
    pub(crate) status: ExitStatus,
    pub(crate) complaint: String,
}

impl Ended {
    /// What was said after a word, e.g. every `durable`.
    pub(crate) fn said<'a>(&'a self, word: &'a str) -> impl Iterator<Item = &'a str> {
        self.said.iter().filter_map(move |line| {
            line.strip_prefix(word)
                .and_then(|rest| if rest.is_empty() { Some(rest) } else { rest.strip_prefix(' ') })
        })
    }
}

/// A command that runs `script` of this binary on `dir`.
pub(crate) fn command(program: Option<&[&str]>, dir: &Path, test: &str, script: &str) -> Command {
    let own = std::env::current_exe().unwrap();
    let mut command = match program {
        Some([program, args @ ..]) => {
            let mut command = Command::new(program);
            command.args(args).arg(own);
            command
        }
        _ => Command::new(own),
    };
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(DIR, dir)
        .env(SCRIPT, script)
        .env("RUST_BACKTRACE", "0");
    command
}

impl Running {
    /// Starts the child and waits until it is about to begin.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines(child.stdout.take().unwrap());
        let mut running = Self { child, lines, thread: 0 };
        let line = running.next_line().expect("the child begins");
        running.thread = line.rsplit(' ').next().unwrap().parse().unwrap();
        running
    }

    pub(crate) fn next_line(&self) -> Option<String> {
        self.lines.recv_timeout(DEADLINE).ok()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets the child go on.
    pub(crate) fn proceed(&mut self) {
        writeln!(self.child.stdin.as_mut().unwrap()).unwrap();
    }

    /// Waits for what the child says until it ends. Its end closes stdout, so no wait is blind.
    pub(crate) fn finish(mut self) -> Ended {
        let mut said = Vec::new();
        loop {
            match self.lines.recv_timeout(DEADLINE) {
                Ok(line) => said.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("the child hangs after {said:?}"),
            }
        }
        let mut complaint = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut complaint).unwrap();
        let status = self.child.wait().unwrap();
        Ended { said, status, complaint }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has mostly ended by itself.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

fn lines(out: ChildStdout) -> Receiver<String> {
    let (send, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            // libtest writes "test child ... " in front of the first.
            if let Some((_, said)) = line.split_once("@ ") {
                let _gone = send.send(said.to_owned());
            }
        }
    });
    lines
}

/// strace on one thread of the child's.
pub(crate) struct Strace {
    child: Child,
    log: PathBuf,
}

impl Strace {
    /// Attaches, and returns when it has. `inject` is the value of `-e inject=`.
    pub(crate) fn attach(tid: i32, inject: &str, log: &Path) -> Result<Self, String> {
        let calls = inject.split(':').next().unwrap();
        let mut child = Command::new("strace")
            .args(["-e", &format!("trace={calls}"), "-e", &format!("inject={inject}")])
            .arg("-o")
            .arg(log)
            .args(["-p", &tid.to_string()])
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("strace cannot be run: {error}"))?;
        let mut said = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut said).unwrap();
        let strace = Self { child, log: log.to_owned() };
        if said.contains("attached") { Ok(strace) } else { Err(format!("strace said: {said}")) }
    }

    /// Waits until the thread is gone, and returns what strace saw.
    pub(crate) fn finish(mut self) -> String {
        self.child.wait().unwrap();
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Strace {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Why strace cannot be used here, if it cannot.
pub(crate) fn no_strace() -> Option<&'static str> {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    WHY.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let mut sleeper = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let tid = i32::try_from(sleeper.id()).unwrap();
        let why = Strace::attach(tid, "fsync:error=EIO:when=1000", &dir.path().join("log")).err();
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        why
    })
    .as_deref()
}
