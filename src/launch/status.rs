//! What a payload says of itself between fork and exec, over a pipe that the exec closes.
//!
//! End of file after [`Word::Executing`] means that the program runs: the pipe is close-on-exec, and
//! nobody else holds its writing end by then.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};

use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};

use super::message::{Process, Step};
use crate::sys::channel;

const NAMED: u8 = b'N';
const PARKED: u8 = b'P';
const EXECUTING: u8 = b'E';
const FAILED: u8 = b'F';

/// Bytes of a process on the pipe: 4 of the id, 8 of the start.
const NAME: usize = 12;

/// Why a payload didn't start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) errno: i32,
    pub(super) detail: String,
}

/// Turns an error of `step` into a failure.
pub(super) fn at(step: Step) -> impl Fn(io::Error) -> Failure {
    move |error| Failure {
        step,
        errno: error.raw_os_error().unwrap_or(0),
        detail: if error.raw_os_error().is_some() { String::new() } else { error.to_string() },
    }
}

/// Turns an error of `step` about `what` into a failure.
pub(super) fn on(step: Step, what: impl ToString) -> impl FnOnce(io::Error) -> Failure {
    move |error| Failure { detail: what.to_string(), ..at(step)(error) }
}

/// One thing that is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Word {
    /// Who it is, seen from outside of its pid namespace; only at level 2, and first.
    Named(Process),
    /// It waits for the word to go on.
    Parked,
    /// The exec is next.
    Executing,
    /// It gives up; always last.
    Failed(Failure),
}

/// A pipe: one end to hear, one to speak.
pub(super) fn pipe() -> io::Result<(Ear, Mouth)> {
    let (read, write) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    channel::set_nonblocking(read.as_fd())?;
    Ok((Ear(read.into()), Mouth(write.into())))
}

/// The payload's end.
#[derive(Debug)]
pub(super) struct Mouth(File);

impl Mouth {
    /// Says something, in one write.
    pub(super) fn say(&mut self, word: &Word) -> io::Result<()> {
        let mut message = Vec::with_capacity(NAME + 1);
        match word {
            Word::Named(Process { pid, start }) => {
                message.push(NAMED);
                message.extend(pid.to_le_bytes());
                message.extend(start.to_le_bytes());
            }
            Word::Parked => message.push(PARKED),
            Word::Executing => message.push(EXECUTING),
            Word::Failed(failure) => {
                message.push(FAILED);
                serde_json::to_writer(&mut message, failure)?;
            }
        }
        self.0.write_all(&message)
    }
}

/// The shim's end. Never blocks.
#[derive(Debug)]
pub(super) struct Ear(File);

impl Ear {
    /// What was said since the last time, and whether the other end is closed.
    pub(super) fn listen(&mut self) -> (Vec<Word>, bool) {
        let mut text = Vec::new();
        // An error is "no more for now".
        let closed = self.0.read_to_end(&mut text).is_ok();
        let mut words = Vec::new();
        let mut bytes = text.as_slice();
        while let Some((&mark, rest)) = bytes.split_first() {
            bytes = rest;
            words.push(match mark {
                NAMED => {
                    let Some((name, rest)) = bytes.split_first_chunk() else { break };
                    bytes = rest;
                    Word::Named(named(*name))
                }
                PARKED => Word::Parked,
                EXECUTING => Word::Executing,
                FAILED => {
                    words.extend(serde_json::from_slice(bytes).ok().map(Word::Failed));
                    break;
                }
                _ => break,
            });
        }
        (words, closed)
    }
}

impl AsFd for Ear {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn named(name: [u8; NAME]) -> Process {
    let [a, b, c, d, start @ ..] = name;
    Process { pid: u32::from_le_bytes([a, b, c, d]), start: u64::from_le_bytes(start) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_heard_as_they_were_said_and_the_end_is_noticed() {
        let (mut ear, mut mouth) = pipe().unwrap();
        assert_eq!(ear.listen(), (vec![], false));
        let failure = Failure { step: Step::Exec, errno: 2, detail: "sh".into() };
        let words = vec![
            Word::Named(Process { pid: 70_000, start: 1 << 40 }),
            Word::Parked,
            Word::Executing,
            Word::Failed(failure),
        ];
        for word in &words {
            mouth.say(word).unwrap();
        }
        assert_eq!(ear.listen(), (words, false));
        drop(mouth);
        assert_eq!(ear.listen(), (vec![], true));
    }
}
