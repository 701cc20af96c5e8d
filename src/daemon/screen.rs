//! Where the daemon's own words go: a terminal, a journal, or a file that is rotated.
//!
//! One line per event. Words that an agent chose are cleaned before they get here or on the way: a
//! terminal obeys escape sequences. Losing a line is never a reason to stop a mission.

use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread::JoinHandle;

use crate::escape;
use crate::ids::Timestamp;

/// Size at which `daemon.log` is rotated.
const MAX_LOG: u64 = 4 << 20;
/// Lines that wait for a reader; more are lost.
const WORDS: usize = 1_024;
/// Older files kept.
const KEEP: u32 = 3;

/// How a line looks on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    /// As it is.
    Plain,
    /// Less important.
    Faint,
    /// Something was achieved.
    Good,
    /// Somebody should look.
    Bad,
}

/// Whether colours are for this stream: only on a terminal that wants them (`NO_COLOR`).
pub(super) fn wants_colour(stream: &impl IsTerminal) -> bool {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    wanted && !dumb && stream.is_terminal()
}

enum Sink {
    Stderr(Words),
    File(Arc<Mutex<LogFile>>),
}

/// Writes where a [`Screen`] does, from any thread; never waits for a reader.
#[derive(Clone)]
pub(super) struct Pen(Where);

#[derive(Clone)]
enum Where {
    /// Until the screen has ended; then right there.
    Stderr(Weak<SyncSender<String>>),
    File(Arc<Mutex<LogFile>>),
}

impl Pen {
    /// Whether it writes into a file.
    pub(super) fn is_file(&self) -> bool {
        matches!(self.0, Where::File(_))
    }

    /// Writes a whole line.
    ///
    /// # Errors
    /// It is lost: nobody reads, or the file can't be written.
    pub(super) fn write(&self, line: &str) -> io::Result<()> {
        match &self.0 {
            Where::Stderr(queue) => send(queue.upgrade().as_deref(), line),
            Where::File(file) => write_file(file, line),
        }
    }
}

fn send(queue: Option<&SyncSender<String>>, line: &str) -> io::Result<()> {
    match queue.map(|queue| queue.try_send(line.to_owned())) {
        Some(Ok(())) => Ok(()),
        Some(Err(_)) => Err(io::ErrorKind::WouldBlock.into()),
        None => io::stderr().lock().write_all(line.as_bytes()),
    }
}

fn write_file(file: &Mutex<LogFile>, line: &str) -> io::Result<()> {
    file.lock().unwrap_or_else(PoisonError::into_inner).write(line.as_bytes())
}

/// See the module.
pub(super) struct Screen {
    sink: Sink,
    colour: bool,
    quiet: bool,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Screen")
    }
}

impl Screen {
    /// Standard error; in colours only on a terminal that wants them (`NO_COLOR`).
    pub(super) fn stderr(quiet: bool) -> Screen {
        let colour = wants_colour(&io::stderr());
        Screen { sink: Sink::Stderr(Words::to(io::stderr())), colour, quiet }
    }

    /// A file.
    ///
    /// # Errors
    /// It can't be opened.
    pub(super) fn file(path: &Path) -> io::Result<Screen> {
        let file = Arc::new(Mutex::new(LogFile::open(path)?));
        Ok(Screen { sink: Sink::File(file), colour: false, quiet: false })
    }

    /// Something else to write with at the same place.
    pub(super) fn pen(&self) -> Pen {
        Pen(match &self.sink {
            Sink::Stderr(words) => {
                Where::Stderr(words.queue.as_ref().map(Arc::downgrade).unwrap_or_default())
            }
            Sink::File(file) => Where::File(Arc::clone(file)),
        })
    }

    /// One event: when, who or what, and what happened.
    pub(super) fn event(&mut self, at: Timestamp, subject: &str, text: &str, tone: Tone) {
        if self.quiet {
            return;
        }
        let colour = match tone {
            Tone::Plain => "",
            Tone::Faint => "\x1b[2m",
            Tone::Good => "\x1b[32m",
            Tone::Bad => "\x1b[31m",
        };
        let (on, off) =
            if self.colour && !colour.is_empty() { (colour, "\x1b[0m") } else { ("", "") };
        let time = clock_time(at, matches!(self.sink, Sink::File(_)));
        self.write(&format!("{time}  {subject:<12} {on}{}{off}\n", clean(text)));
    }

    /// Something for the person who watches.
    pub(super) fn note(&mut self, text: &str) {
        if !self.quiet {
            self.write(&format!("{}\n", clean(text)));
        }
    }

    /// Something that person should know of in any case.
    pub(super) fn warn(&mut self, text: &str) {
        let (on, off) = if self.colour { ("\x1b[33m", "\x1b[0m") } else { ("", "") };
        self.write(&format!("{on}warning:{off} {}\n", clean(text)));
    }

    fn write(&mut self, line: &str) {
        let _lost = match &mut self.sink {
            Sink::Stderr(words) => words.write(line),
            Sink::File(file) => write_file(file, line),
        };
    }
}

/// The time of day here; with the date in a file.
fn clock_time(at: Timestamp, with_date: bool) -> String {
    let Ok(time) = jiff::Timestamp::from_millisecond(at.0) else { return at.0.to_string() };
    let here = time.to_zoned(jiff::tz::TimeZone::system());
    let format = if with_date { "%Y-%m-%d %H:%M:%S" } else { "%H:%M:%S" };
    here.strftime(format).to_string()
}

/// A text on one line, with everything escaped that a terminal would obey or that reorders text, and
/// not too long.
pub(super) fn clean(text: &str) -> String {
    const MAX: usize = 400;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{}...", escape::line(&text[..end])),
        None => escape::line(text).into_owned(),
    }
}

/// Words on their way to somebody who may have stopped reading (Ctrl-S, a pager, a full pipe): a
/// thread of its own waits for them, the loop never does. Made after the launcher: it is a thread.
struct Words {
    queue: Option<Arc<SyncSender<String>>>,
    writer: Option<JoinHandle<()>>,
}

impl Words {
    fn to(mut to: impl Write + Send + 'static) -> Words {
        let (queue, lines) = sync_channel::<String>(WORDS);
        let write = move || {
            for line in lines {
                // Nobody is there any more: then nobody misses it.
                let _lost = to.write_all(line.as_bytes());
            }
        };
        let writer = std::thread::Builder::new().name("screen".into()).spawn(write).ok();
        Words { queue: writer.is_some().then(|| Arc::new(queue)), writer }
    }

    fn write(&self, line: &str) -> io::Result<()> {
        send(self.queue.as_deref(), line)
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        self.queue = None;
        if let Some(writer) = self.writer.take() {
            // What follows on standard error or output comes after this.
            let _ended = writer.join();
        }
    }
}

struct LogFile {
    path: PathBuf,
    file: File,
    size: u64,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<LogFile> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)?;
        Ok(LogFile { path: path.to_owned(), size: file.metadata()?.len(), file })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.size >= MAX_LOG {
            let numbered = |n: u32| {
                let mut name = self.path.clone().into_os_string();
                name.push(format!(".{n}"));
                PathBuf::from(name)
            };
            for n in (1..KEEP).rev() {
                let _absent = std::fs::rename(numbered(n), numbered(n + 1));
            }
            std::fs::rename(&self.path, numbered(1))?;
            *self = LogFile::open(&self.path)?;
        }
        self.size += bytes.len() as u64;
        self.file.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(clean("a\u{1b}[31m\u{9b}\u{202e}b\nc"), "a\\x1b[31m\\x9b\\u{202e}b\\nc");
        assert_eq!(clean(&"x".repeat(1000)).len(), 403);
    }

    /// The foreground daemon of a person who had pressed Ctrl-S stood still with the mission.
    #[test]
    fn nobody_waits_for_a_reader_who_does_not_read() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let words = Words::to(writer);
        let line = format!("{}\n", "x".repeat(99));
        let taken = (0..10 * WORDS).filter(|_| words.write(&line).is_ok()).count();
        assert!((WORDS..10 * WORDS).contains(&taken), "{taken}");
        let read = std::thread::spawn(move || {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut reader, &mut text).map(|_| text)
        });
        drop(words);
        assert_eq!(read.join().unwrap().unwrap(), line.repeat(taken), "the rest is whole");
    }

    #[test]
    fn the_log_file_is_rotated_and_a_few_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.log");
        let mut log = LogFile::open(&path).unwrap();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..30 {
            log.write(&chunk).unwrap();
        }
        let mut names: Vec<_> =
            std::fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["daemon.log", "daemon.log.1", "daemon.log.2", "daemon.log.3"]);
    }
}
