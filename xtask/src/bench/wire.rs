//! The two wires, as bytes: the same blocking client drives missiond and Redis.
//!
//! A request is encoded once, answers are counted by their line ends and messages by a mark, so that
//! the client costs both the same, and little: it runs on the same processors. A payload opens with
//! `~` and a 20-digit time.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::clock;
use super::lead::Lead;

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

/// How a refused publish is answered.
const REFUSAL: &[u8] = br#"{"jsonrpc":"2.0","id":1,"error""#;
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

    /// A publish, but for the time.
    fn template(&self, kind: Kind) -> Template {
        let rest = PAYLOAD - 21;
        let payload = format!("~{:020}{:x>rest$}", 0, "");
        let text = match (self.speaks, kind) {
            (Speaks::Missiond, Kind::Logged) => format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"publish","params":{{"type":"custom.bench","content":"{payload}"}}}}"#
            ),
            (Speaks::Missiond, Kind::Ephemeral) => format!(
                r#"{{"jsonrpc":"2.0","id":1,"method":"publish","params":{{"type":"custom.bench","ephemeral":true,"content":"{payload}"}}}}"#
            ),
            (Speaks::Redis, Kind::Logged) => format!(
                "*5\r\n$4\r\nXADD\r\n$1\r\ns\r\n$1\r\n*\r\n$1\r\nd\r\n${PAYLOAD}\r\n{payload}\r"
            ),
            (Speaks::Redis, Kind::Ephemeral) => {
                format!("*3\r\n$7\r\nPUBLISH\r\n$1\r\nc\r\n${PAYLOAD}\r\n{payload}\r")
            }
        };
        let time = text.find('~').map_or(0, |at| at + 1);
        Template { bytes: (text + "\n").into_bytes(), time }
    }

    /// Line ends in the answer to one publish.
    fn lines_per_answer(&self, kind: Kind) -> usize {
        match (self.speaks, kind) {
            (Speaks::Redis, Kind::Logged) => 2,
            (Speaks::Redis, Kind::Ephemeral) | (Speaks::Missiond, _) => 1,
        }
    }

    /// Publishes `count` messages with at most `window` unanswered, and no more ahead of the readers
    /// than `lead` allows; each answer's delay in nanoseconds is kept when there is one outstanding
    /// at a time.
    pub(crate) fn publish_many(
        &self,
        stream: &mut UnixStream,
        kind: Kind,
        count: usize,
        window: usize,
        origin: Instant,
        lead: Option<&Lead>,
    ) -> io::Result<Vec<u64>> {
        let per = self.lines_per_answer(kind);
        let template = self.template(kind);
        let (mut sent, mut lines) = (0, 0);
        let (mut out, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
        let mut delays = Vec::new();
        let mut asked = 0;
        while lines < count * per {
            out.clear();
            let bound = match lead {
                Some(lead) if sent * per == lines => lead.wait(sent)?,
                Some(lead) => lead.bound(),
                None => count,
            };
            while sent < count.min(bound) && sent - lines / per < window {
                template.fill(&mut out, clock::nanos(origin));
                sent += 1;
            }
            if !out.is_empty() {
                asked = clock::nanos(origin);
                stream.write_all(&out)?;
            }
            let length = stream.read(&mut buffer)?;
            let got = buffer.get(..length).unwrap_or_default();
            let refused = match self.speaks {
                Speaks::Missiond => got.split(|b| *b == b'\n').any(|l| l.starts_with(REFUSAL)),
                Speaks::Redis => got.first() == Some(&b'-'),
            };
            if length == 0 || refused {
                let answer = String::from_utf8_lossy(got).into_owned();
                return Err(io::Error::other(format!("{} answers: {answer}", self.name)));
            }
            lines += count_of(b'\n', got);
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

/// How often a byte is there; plain enough to be done by vectors.
fn count_of(byte: u8, bytes: &[u8]) -> usize {
    bytes.iter().filter(|b| **b == byte).count()
}

/// A publish whose time is still to be filled in.
struct Template {
    bytes: Vec<u8>,
    time: usize,
}

impl Template {
    fn fill(&self, out: &mut Vec<u8>, time: u64) {
        let at = out.len() + self.time;
        out.extend_from_slice(&self.bytes);
        let mut rest = time;
        for digit in out.iter_mut().skip(at).take(20).rev() {
            *digit =
                b"0123456789".get(usize::try_from(rest % 10).unwrap_or(0)).map_or(b'0', |d| *d);
            rest /= 10;
        }
    }
}

/// A reader that counts.
pub(crate) struct Listener {
    stream: UnixStream,
    speaks: Speaks,
    kind: Kind,
}

impl Listener {
    /// Reads until `count` messages have come, and tells `seen` how many there are.
    pub(crate) fn count(mut self, count: usize, seen: impl Fn(usize)) -> io::Result<()> {
        if self.speaks == Speaks::Redis && self.kind == Kind::Logged {
            return self.count_stream(count);
        }
        let mut buffer = vec![0; 256 << 10];
        let mut marks = 0;
        while marks < count {
            let length = self.stream.read(&mut buffer)?;
            if length == 0 {
                return Err(io::Error::other("the server hung up on a reader"));
            }
            marks += count_of(MARK, buffer.get(..length).unwrap_or_default());
            seen(marks);
        }
        Ok(())
    }

    /// Reads until `count` messages have come; their one-way delays in nanoseconds.
    pub(crate) fn delays(mut self, count: usize, origin: Instant) -> io::Result<Vec<u64>> {
        let mut buffer = vec![0; 256 << 10];
        let mut kept = 0;
        let mut found = Vec::new();
        while found.len() < count {
            let space = buffer.get_mut(kept..).unwrap_or_default();
            let length = self.stream.read(space)?;
            if length == 0 {
                return Err(io::Error::other("the server hung up on a reader"));
            }
            let now = clock::nanos(origin);
            // What follows the last mark may be cut: it is looked at again with what comes next.
            let mut rest = buffer.get(..kept + length).unwrap_or_default();
            while let Some(at) = rest.iter().position(|b| *b == MARK)
                && let Some(time) = rest.get(at + 1..at + 21)
            {
                let sent = std::str::from_utf8(time).ok().and_then(|t| t.parse().ok());
                found.push(now.saturating_sub(sent.unwrap_or(now)));
                rest = rest.get(at + 21..).unwrap_or_default();
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
    fn count_stream(mut self, count: usize) -> io::Result<()> {
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
        Ok(())
    }
}
