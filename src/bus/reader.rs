//! The tasks of a connection: one that reads requests, one that writes when the socket was full.
//!
//! ```text
//!  silent --hello--> greeted --EOF--> half closed --answers written--> over
//!     |                 |                              (10 s at most)    ^
//!     '-----------------'--- line too long, half a line, no room --------'
//! ```
//!
//! The reader holds back in this order, so that nothing piles up: it reads no further line while the
//! peer leaves answers unread, while 256 requests are unanswered, or while the owner has 4 MiB of
//! requests on their way.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::conn::{Conn, unless_gone, written};
use super::identity;
use super::inbound::{Inbound, Input, Ticket};
use super::outbox::Flushed;
use super::quota::{BUFFERED_BYTES, INBOUND_BYTES};
use crate::core::denied::{Code, Denied};
use crate::ids::Timestamp;
use crate::proto::{self, Call, FrameError, MAX_LINE, MAX_OUTSTANDING, Rejected};

/// How long a started line may take to come.
const PARTIAL: Duration = Duration::from_secs(10);

/// How long a peer that sends no more is still answered.
const HALF_CLOSED: Duration = Duration::from_secs(10);

/// How long a refused connection may take to read why.
const LAST_WORD: Duration = Duration::from_secs(1);

/// Read at once.
const CHUNK: usize = 16 << 10;

/// The daemon's clock.
pub(super) type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What the reader needs beside its connection.
pub(super) struct Reader {
    pub(super) inputs: mpsc::Sender<Input>,
    pub(super) clock: Clock,
    /// The key that `hello` has to show.
    pub(super) key: Option<PathBuf>,
}

/// Why reading ended.
enum End {
    /// The peer sends no more.
    Closed,
    /// It was told why.
    Faulty,
    /// The daemon ends.
    HubGone,
}

/// The reader task. Ends with `Input::Closed`.
pub(super) async fn run(conn: Arc<Conn>, reader: Reader) {
    let mut lines = Lines { conn: &conn, buffer: Vec::new(), filled: 0, searched: 0, charged: 0 };
    let end = serve(&conn, &reader, &mut lines).await;
    drop(lines);
    let is_open = !conn.outbox.is_closed();
    match end {
        Err(_) | Ok(End::HubGone) => {}
        Ok(End::Closed) if is_open && !conn.socket.is_hung_up().await => {
            // `printf ... | socat - UNIX:...` closes its half and waits for the answers.
            let all = u32::try_from(MAX_OUTSTANDING).unwrap_or(u32::MAX);
            let answered = async {
                let _ = conn.outstanding.acquire_many(all).await;
                written(&conn).await;
            };
            let _ = timeout(HALF_CLOSED, answered).await;
        }
        Ok(End::Closed) => {}
        Ok(End::Faulty) => {
            let _ = timeout(LAST_WORD, written(&conn)).await;
        }
    }
    conn.outbox.close();
    let _ = reader.inputs.send(Input::closed(&conn)).await;
}

/// The writer task: takes over when the socket was full, and tells the hub when there is room again.
pub(super) async fn write(conn: Arc<Conn>, inputs: mpsc::Sender<Input>) {
    loop {
        conn.outbox.wake.notified().await;
        loop {
            let flushed = conn.outbox.drain();
            if conn.outbox.take_wanted_room() && inputs.send(Input::room(conn.id)).await.is_err() {
                return;
            }
            match flushed {
                Flushed::All => break,
                Flushed::Closed => return,
                Flushed::Blocked => {
                    if conn.socket.writable().await.is_err() {
                        // Nothing to wait with: it may come again when there are descriptors.
                        conn.outbox.close();
                        return;
                    }
                }
            }
        }
    }
}

async fn serve(conn: &Arc<Conn>, reader: &Reader, lines: &mut Lines<'_>) -> io::Result<End> {
    let mut asks = Asks { conn, reader, is_greeted: false, at: Timestamp(0), parsed: Vec::new() };
    loop {
        match lines.read().await? {
            Read::Lines => {}
            Read::End => return Ok(End::Closed),
            Read::Fault(error) => {
                conn.reject(&Rejected { id: None, error });
                return Ok(End::Faulty);
            }
            Read::OutOfSpace => {
                let message = "too many half-sent lines: send whole lines, on fewer connections";
                conn.refuse(None, &Denied::new(Code::Limit, message));
                return Ok(End::Faulty);
            }
        }
        asks.at = (reader.clock)();
        let mut start = 0;
        while let Some(end) = lines.line_end(start) {
            if let Some(end) = asks.line(&lines.buffer[start..end]).await {
                let _ = asks.send().await;
                return Ok(end);
            }
            start = end + 1;
        }
        if let Some(end) = asks.send().await {
            return Ok(end);
        }
        lines.consume(start);
    }
}

/// What a connection asks for.
struct Asks<'a> {
    conn: &'a Arc<Conn>,
    reader: &'a Reader,
    is_greeted: bool,
    /// When the lines were read.
    at: Timestamp,
    /// Goes to the loop together. Nothing is waited for while it is held back.
    parsed: Vec<Inbound>,
}

impl Asks<'_> {
    /// Gives the loop what was parsed.
    async fn send(&mut self) -> Option<End> {
        if self.parsed.is_empty() {
            return None;
        }
        let inbound = std::mem::take(&mut self.parsed);
        match self.reader.inputs.send(Input::requests(inbound)).await {
            Ok(()) => None,
            Err(_) => Some(End::HubGone),
        }
    }

    /// Deals with one line; something when the connection is to end.
    async fn line(&mut self, line: &[u8]) -> Option<End> {
        let (conn, reader) = (self.conn, self.reader);
        if !conn.outbox.has_room() {
            if let Some(end) = self.send().await {
                return Some(end);
            }
            if unless_gone(conn, conn.outbox.wait_for_room()).await.is_none() {
                return Some(End::Closed);
            }
            self.at = (reader.clock)();
        }
        let parsed = proto::parse(line);
        if let Err(wait) = conn.owner.take_request() {
            let id = match &parsed {
                Ok(frame) => Some(&frame.id),
                Err(rejected) => rejected.id.as_ref(),
            };
            let message = "too many requests per second: slow down (limits.requests_per_second)";
            conn.refuse(id, &Denied::new(Code::Limit, message));
            let end = self.send().await;
            sleep(wait).await;
            self.at = (reader.clock)();
            return end;
        }
        let frame = match parsed {
            Ok(frame) => frame,
            Err(rejected) => {
                conn.reject(&rejected);
                return None;
            }
        };
        if let Call::Hello(hello) = &frame.call {
            if let Some(path) = &reader.key
                && !shows_key(path, hello.operator_key.as_deref())
            {
                let message = "operator_key is not the content of operator.key";
                conn.refuse(Some(&frame.id), &Denied::new(Code::Denied, message));
                return Some(End::Faulty);
            }
            self.is_greeted = true;
        } else if !self.is_greeted {
            let message = "say hello first: {\"method\":\"hello\",\"params\":{\"version\":1}}";
            conn.refuse(Some(&frame.id), &Denied::new(Code::Invalid, message));
            return None;
        }
        let permits = match permits(conn, line.len()) {
            Some(permits) => permits,
            None => {
                if let Some(end) = self.send().await {
                    return Some(end);
                }
                let waited = unless_gone(conn, wait_for_permits(conn, line.len())).await;
                self.at = (reader.clock)();
                // The semaphores are never closed.
                let Some(Ok(permits)) = waited else { return Some(End::Closed) };
                permits
            }
        };
        conn.owner.hears(self.at);
        self.parsed.push(Inbound {
            ticket: Ticket::new(Arc::clone(conn), frame.id, permits),
            who: conn.owner.who,
            pid: conn.pid,
            method: frame.method,
            call: frame.call,
            key: frame.key,
            at: self.at,
        });
        None
    }
}

/// What a line of so many bytes is charged to its owner.
fn charge(length: usize) -> u32 {
    u32::try_from(length.clamp(1, INBOUND_BYTES)).unwrap_or(u32::MAX)
}

/// The right to one more unanswered request, where there is no need to wait for it.
fn permits(conn: &Conn, length: usize) -> Option<[OwnedSemaphorePermit; 2]> {
    let outstanding = Arc::clone(&conn.outstanding).try_acquire_owned().ok()?;
    let inbound = Arc::clone(&conn.owner.inbound).try_acquire_many_owned(charge(length)).ok()?;
    Some([outstanding, inbound])
}

async fn wait_for_permits(
    conn: &Conn,
    length: usize,
) -> Result<[OwnedSemaphorePermit; 2], AcquireError> {
    let outstanding = Arc::clone(&conn.outstanding).acquire_owned().await?;
    let inbound = Arc::clone(&conn.owner.inbound).acquire_many_owned(charge(length)).await?;
    Ok([outstanding, inbound])
}

fn shows_key(path: &PathBuf, shown: Option<&str>) -> bool {
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    shown.is_some_and(|shown| identity::is_same_key(shown, &expected))
}

/// Lines out of a socket.
struct Lines<'a> {
    conn: &'a Conn,
    /// What was read, and after it room for more.
    buffer: Vec<u8>,
    /// Bytes that were read and not dealt with.
    filled: usize,
    /// No newline before here.
    searched: usize,
    /// What the owner is charged for the buffer.
    charged: usize,
}

enum Read {
    /// There is at least one whole line.
    Lines,
    /// The peer sends no more.
    End,
    /// It sent what can't be gone on from.
    Fault(FrameError),
    /// The owner's buffers are too large together.
    OutOfSpace,
}

impl Lines<'_> {
    /// Where the line that begins at `start` ends.
    fn line_end(&mut self, start: usize) -> Option<usize> {
        let from = self.searched.max(start);
        let found = self.buffer.get(from..self.filled)?.iter().position(|b| *b == b'\n');
        self.searched = found.map_or(self.filled, |at| from + at);
        found.map(|at| from + at)
    }

    /// Forgets what is dealt with.
    fn consume(&mut self, length: usize) {
        if length == self.filled && self.buffer.len() > 4 * CHUNK {
            self.buffer = Vec::new();
        } else {
            self.buffer.copy_within(length..self.filled, 0);
        }
        self.filled -= length;
        self.searched = self.filled;
        self.charge();
    }

    fn charge(&mut self) -> usize {
        let now = self.filled;
        let owner = &self.conn.owner.buffered;
        let before = std::mem::replace(&mut self.charged, now);
        if now >= before {
            owner.fetch_add(now - before, Ordering::Relaxed) + now - before
        } else {
            owner.fetch_sub(before - now, Ordering::Relaxed) - (before - now)
        }
    }

    /// Reads until there is a whole line. A started line has ten seconds.
    async fn read(&mut self) -> io::Result<Read> {
        let mut deadline = None;
        loop {
            let readable = self.conn.socket.readable();
            if self.filled == 0 {
                readable.await?;
            } else {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + PARTIAL);
                match timeout_at(deadline, readable).await {
                    Ok(ready) => ready?,
                    Err(_) => {
                        let seconds = PARTIAL.as_secs();
                        return Ok(Read::Fault(FrameError::Partial { seconds }));
                    }
                }
            }
            let room = (MAX_LINE + 1).saturating_sub(self.filled).clamp(1, CHUNK);
            if self.buffer.len() < self.filled + room {
                self.buffer.resize(self.filled + room, 0);
            }
            let space = &mut self.buffer[self.filled..self.filled + room];
            match self.conn.socket.try_read(space) {
                Ok(0) => return Ok(Read::End),
                Ok(n) => self.filled += n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if self.charge() > BUFFERED_BYTES {
                return Ok(Read::OutOfSpace);
            }
            if self.line_end(0).is_some() {
                return Ok(Read::Lines);
            }
            if self.filled > MAX_LINE {
                return Ok(Read::Fault(FrameError::TooLong));
            }
        }
    }
}

impl Drop for Lines<'_> {
    fn drop(&mut self) {
        self.conn.owner.buffered.fetch_sub(self.charged, Ordering::Relaxed);
    }
}
