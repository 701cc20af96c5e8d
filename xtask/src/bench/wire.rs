//! The two wires, as bytes: the same blocking client drives missiond and Redis.
//!
//! A request is encoded once and its answers are counted by their line ends, so that the client costs
//! the same for both. A payload opens with `~` and a 20-digit time, which a reader finds by that mark.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::clock;

/// Whose wire it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Missiond,
    Redis,
}

/// A running server.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) speaks: Speaks,
    pub(crate) socket: PathBuf,
    pub(crate) pid: u32,
}

/// Whether a message is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `publish`; `XADD`.
    Logged,
    /// `publish` with `ephemeral`; `PUBLISH`.
    Ephemeral,
}

const MARK: u8 = b'~';
/// A whole payload, in bytes.
pub(crate) const PAYLOAD: usize = 100;
const PATIENCE: Duration = Duration::from_secs(60);

impl Target {
    /// A connection, greeted.
    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        if self.speaks == Speaks::Missiond {
            self.ask(&mut stream, "hello", r#"{"version":1,"client":"bench"}"#)?;
        }
        Ok(stream)
    }

    fn ask(&self, stream: &mut UnixStream, method: &str, params: &str) -> io::Result<()> {
        writeln!(stream, r#"{{"jsonrpc":"2.0","id":0,"method":"{method}","params":{params}}}"#)?;
        let mut line = Vec::new();
        let mut byte = [0];
        while byte[0] != b'\n' {
            stream.read_exact(&mut byte)?;
            line.push(byte[0]);
        }
        match line.windows(8).any(|w| w == b"\"result\"") {
            true => Ok(()),
            false => Err(io::Error::other(String::from_utf8_lossy(&line).into_owned())),
        }
    }

    /// Appends one publish of `time` to `out`.
    pub(crate) fn publish(&self, out: &mut Vec<u8>, kind: Kind, time: u64) -> io::Result<()> {
        let rest = PAYLOAD - 21;
        match (self.speaks, kind) {
            (Speaks::Missiond, Kind::Logged) => write!(
                out,
                r#"{{"jsonrpc":"2.0","id":1,"method":"publish","params":{{"type":"custom.bench","content":"~{time:020}{:x>rest$}"}}}}"#,
                ""
            )?,
            (Speaks::Missiond, Kind::Ephemeral) => write!(
                out,
                r#"{{"jsonrpc":"2.0","id":1,"method":"publish","params":{{"type":"custom.bench","ephemeral":true,"content":"~{time:020}{:x>rest$}"}}}}"#,
                ""
            )?,
            (Speaks::Redis, Kind::Logged) => write!(
                out,
                "*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n$1\r\nd\r\n${PAYLOAD}\r\n~{time:020}{:x>rest$}\r",
                ""
            )?,
            (Speaks::Redis, Kind::Ephemeral) => write!(
                out,
                "*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n${PAYLOAD}\r\n~{time:020}{:x>rest$}\r",
                ""
            )?,
        }
        out.push(b'\n');
        Ok(())
    }

    /// Line ends in the answer to one publish.
    fn lines_per_answer(&self, kind: Kind) -> usize {
        match (self.speaks, kind) {
            (Speaks::Redis, Kind::Logged) => 2,
            (Speaks::Redis, Kind::Ephemeral) | (Speaks::Missiond, _) => 1,
        }
    }

    /// Publishes `count` messages with at most `window` unanswered; each answer's delay in
    /// nanoseconds is kept when there is one outstanding at a time.
    pub(crate) fn publish_many(
        &self,
        stream: &mut UnixStream,
        kind: Kind,
        count: usize,
        window: usize,
        origin: Instant,
    ) -> io::Result<Vec<u64>> {
        let per = self.lines_per_answer(kind);
        let (mut sent, mut lines) = (0, 0);
        let (mut out, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        let mut delays = Vec::new();
        let mut asked = 0;
        while lines < count * per {
            out.clear();
            while sent < count && sent - lines / per < window {
                self.publish(&mut out, kind, clock::nanos(origin))?;
                sent += 1;
            }
            if !out.is_empty() {
                asked = clock::nanos(origin);
                stream.write_all(&out)?;
            }
            let length = stream.read(&mut buffer)?;
            let got = buffer.get(..length).unwrap_or_default();
            if length == 0
                || got.windows(7).any(|w| w == b"\"error\"")
                || got.first() == Some(&b'-')
            {
                let answer = String::from_utf8_lossy(got).into_owned();
                return Err(io::Error::other(format!("{} answers: {answer}", self.name)));
            }
            lines += got.iter().filter(|b| **b == b'\n').count();
            if window == 1 && lines % per == 0 {
                delays.push(clock::nanos(origin) - asked);
            }
        }
        Ok(delays)
    }

    /// Begins to listen: a volatile reader of everything from now on.
    pub(crate) fn listen(&self, kind: Kind) -> io::Result<Listener> {
        let mut stream = self.connect()?;
        match (self.speaks, kind) {
            (Speaks::Missiond, _) => {
                self.ask(
                    &mut stream,
                    "subscribe",
                    r#"{"subscription":"tail","types":["custom.bench"]}"#,
                )?;
            }
            (Speaks::Redis, Kind::Ephemeral) => {
                stream.write_all(b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n")?;
                let mut lines = 0;
                let mut byte = [0];
                while lines < 6 {
                    stream.read_exact(&mut byte)?;
                    lines += usize::from(byte[0] == b'\n');
                }
            }
            (Speaks::Redis, Kind::Logged) => {}
        }
        Ok(Listener { stream, speaks: self.speaks, kind })
    }
}

/// A reader that counts.
pub(crate) struct Listener {
    stream: UnixStream,
    speaks: Speaks,
    kind: Kind,
}

impl Listener {
    /// Reads until `count` messages have come; their one-way delays in nanoseconds if wanted.
    pub(crate) fn count(
        mut self,
        count: usize,
        origin: Instant,
        delays: bool,
    ) -> io::Result<Vec<u64>> {
        if self.speaks == Speaks::Redis && self.kind == Kind::Logged {
            return self.count_stream(count);
        }
        let mut buffer = vec![0; 256 << 10];
        let (mut seen, mut kept) = (0, 0);
        let mut found = Vec::new();
        while seen < count {
            let space = buffer.get_mut(kept..).unwrap_or_default();
            let length = self.stream.read(space)?;
            if length == 0 {
                return Err(io::Error::other("the server hung up on a reader"));
            }
            let now = clock::nanos(origin);
            let got = buffer.get(..kept + length).unwrap_or_default();
            // What follows the last mark may be cut: it is looked at again with what comes next.
            let mut from = 0;
            let mut rest = got;
            while let Some(at) = rest.iter().position(|b| *b == MARK) {
                let Some(time) = rest.get(at + 1..at + 21) else { break };
                if delays {
                    let sent: u64 =
                        std::str::from_utf8(time).ok().and_then(|t| t.parse().ok()).unwrap_or(now);
                    found.push(now.saturating_sub(sent));
                }
                seen += 1;
                from += at + 21;
                rest = got.get(from..).unwrap_or_default();
            }
            let cut = rest.iter().position(|b| *b == MARK).map_or(0, |at| rest.len() - at);
            let end = kept + length;
            buffer.copy_within(end - cut..end, 0);
            kept = cut;
        }
        Ok(found)
    }

    /// A reader of a Redis stream asks for each batch: that is how one tails a log there. The stream
    /// begins empty.
    fn count_stream(mut self, count: usize) -> io::Result<Vec<u64>> {
        let mut last = b"0-0".to_vec();
        let mut seen = 0;
        let (mut input, mut output) =
            (io::BufReader::with_capacity(256 << 10, self.stream.try_clone()?), Vec::new());
        let mut line = Vec::new();
        while seen < count {
            output.clear();
            output.extend(
                b"*6\r\n$5\r\nXREAD\r\n$5\r\nBLOCK\r\n$1\r\n0\r\n$7\r\nSTREAMS\r\n$1\r\ns\r\n",
            );
            write!(output, "${}\r\n", last.len())?;
            output.extend(&last);
            output.extend(b"\r\n");
            self.stream.write_all(&output)?;
            // *1, *2, $1, s, *N, and then N times *2, $n, ID, *2, $1, d, $n, PAYLOAD.
            let mut next = |line: &mut Vec<u8>| -> io::Result<()> {
                line.clear();
                match io::BufRead::read_until(&mut input, b'\n', line)? {
                    0 => Err(io::Error::other("the server hung up on a reader")),
                    _ => Ok(()),
                }
            };
            for _ in 0..5 {
                next(&mut line)?;
            }
            let text = String::from_utf8_lossy(&line);
            let entries: usize = text
                .trim_end()
                .strip_prefix('*')
                .and_then(|n| n.parse().ok())
                .ok_or_else(|| io::Error::other(format!("a stream answers {text:?}")))?;
            for _ in 0..entries {
                for at in 0..8 {
                    next(&mut line)?;
                    if at == 2 {
                        last.clear();
                        last.extend(line.strip_suffix(b"\r\n").unwrap_or(&line));
                    }
                }
            }
            seen += entries;
        }
        Ok(Vec::new())
    }
}
