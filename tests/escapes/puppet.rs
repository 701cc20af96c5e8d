//! An agent that does what the test says: the test's end of it. The other end is `deed`.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code outside of a test function")]

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use missiond::sys::clock;
use missiond::sys::process::Pid;
use nix::sys::stat::Mode;
use serde_json::{Value, json};

use crate::deed::{Answer, Deed, Ready};
use crate::stage::{DEADLINE, readable_within};

/// Two named pipes in a directory of the agent's own, both open on this side all the time.
pub(crate) struct Puppet {
    pub(crate) name: String,
    orders: File,
    answers: File,
    buffer: Vec<u8>,
}

impl Puppet {
    pub(crate) fn new(name: &str, dir: &Path) -> Puppet {
        std::fs::create_dir(dir).unwrap();
        let open = |file: &str| {
            let path = dir.join(file);
            nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
            let mut options = File::options();
            options.read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path).unwrap()
        };
        let (orders, answers) = (open("orders"), open("answers"));
        Puppet { name: name.to_owned(), orders, answers, buffer: Vec::new() }
    }

    /// The next line it says, if it says one within `limit`.
    pub(crate) fn line(&mut self, limit: Duration) -> Option<String> {
        let until = clock::since_boot() + limit;
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                let line = std::mem::replace(&mut self.buffer, rest);
                return Some(String::from_utf8(line).unwrap());
            }
            let mut chunk = [0; 4096];
            match self.answers.read(&mut chunk) {
                Ok(length) => self.buffer.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    let left = until.saturating_sub(clock::since_boot());
                    if left.is_zero() || !readable_within(&self.answers, left) {
                        return None;
                    }
                }
                Err(error) => panic!("{}: {error}", self.name),
            }
        }
    }

    fn must_say(&mut self, what: &str) -> String {
        let line = self.line(DEADLINE);
        line.unwrap_or_else(|| panic!("{} says nothing for {DEADLINE:?}: {what}", self.name))
    }

    /// Waits until its process runs.
    pub(crate) fn ready(&mut self) -> Ready {
        let line = self.must_say("that it runs");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{}: {e}: {line}", self.name))
    }

    /// Has it begin something.
    pub(crate) fn begin(&mut self, deed: &Deed) {
        let line = serde_json::to_string(deed).unwrap() + "\n";
        self.orders.write_all(line.as_bytes()).unwrap();
    }

    /// Waits for the answer to what was begun.
    pub(crate) fn answer(&mut self) -> Answer {
        let line = self.must_say("how a deed came out");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{}: {e}: {line}", self.name))
    }

    pub(crate) fn act(&mut self, deed: &Deed) -> Answer {
        self.begin(deed);
        self.answer()
    }

    /// The errno of a deed, 0 where it was done.
    pub(crate) fn errno(&mut self, deed: &Deed) -> i32 {
        self.act(deed).errno
    }

    /// The text of a deed that is done.
    pub(crate) fn text(&mut self, deed: &Deed) -> String {
        let answer = self.act(deed);
        assert_eq!(answer.errno, 0, "{}: {deed:?}: {}", self.name, answer.text);
        answer.text
    }

    /// The text of what was begun and is done.
    pub(crate) fn text_of_begun(&mut self) -> String {
        let answer = self.answer();
        assert_eq!(answer.errno, 0, "{}: {}", self.name, answer.text);
        answer.text
    }

    /// Forgets what a process that has ended had said and was told.
    pub(crate) fn forget(&mut self) {
        let mut old = Vec::new();
        for pipe in [&mut self.orders, &mut self.answers] {
            // It ends with "would block": this side is open, too.
            let _empty = pipe.read_to_end(&mut old);
        }
        self.buffer.clear();
    }

    /// What a socket answers to these requests, after `hello`; the door's refusal is the only one.
    pub(crate) fn ask_at(&mut self, socket: &Path, calls: &[(&str, Value)]) -> Vec<Value> {
        let calls = calls.iter().map(|(m, p)| ((*m).to_owned(), p.clone())).collect();
        let text = self.text(&Deed::Ask { socket: Some(socket.into()), calls });
        serde_json::from_str(&text).unwrap()
    }

    /// What its own socket answers to one request.
    pub(crate) fn ask(&mut self, method: &str, params: &Value) -> Value {
        let calls = vec![(method.to_owned(), params.clone())];
        let text = self.text(&Deed::Ask { socket: None, calls });
        let answers: Vec<Value> = serde_json::from_str(&text).unwrap();
        answers.into_iter().next_back().unwrap_or(Value::Null)
    }

    /// A request of its own that must be carried out, within `limit`.
    pub(crate) fn is_served_within(&mut self, limit: Duration) {
        let start = clock::since_boot();
        let answer = self.ask("task.list", &json!({}));
        let took = clock::since_boot() - start;
        assert!(answer.get("result").is_some(), "{}: {answer}", self.name);
        assert!(took <= limit, "{} was answered after {took:?}, later than {limit:?}", self.name);
    }
}

/// The number of a process as the system calls take it.
pub(crate) fn raw(pid: Pid) -> i32 {
    i32::try_from(pid).unwrap()
}
