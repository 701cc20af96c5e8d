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

use tokio::sync::{AcquireError, mpsc};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::conn::{Conn, is_hung_up, unless_gone, written};
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
    let mut lines = Lines { conn: &conn, buffer: Vec::new(), searched: 0, charged: 0 };
    let end = serve(&conn, &reader, &mut lines).await;
    drop(lines);
    let is_open = !conn.outbox.is_closed();
    match end {
        Err(_) | Ok(End::HubGone) => {}
        Ok(End::Closed) if is_open && !is_hung_up(&conn.stream).await => {
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
                    if conn.stream.writable().await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

async fn serve(conn: &Arc<Conn>, reader: &Reader, lines: &mut Lines<'_>) -> io::Result<End> {
    let mut is_greeted = false;
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
        let mut start = 0;
        while let Some(end) = lines.line_end(start) {
            if unless_gone(conn, conn.outbox.wait_for_room()).await.is_none() {
                return Ok(End::Closed);
            }
            if let Some(end) =
                request(conn, reader, &lines.buffer[start..end], &mut is_greeted).await
            {
                return Ok(end);
            }
            start = end + 1;
        }
        lines.consume(start);
    }
}

/// Deals with one line; something when the connection is to end.
async fn request(
    conn: &Arc<Conn>,
    reader: &Reader,
    line: &[u8],
    is_greeted: &mut bool,
) -> Option<End> {
    let parsed = proto::parse(line);
    if let Err(wait) = conn.owner.take_request() {
        let id = match &parsed {
            Ok(frame) => Some(&frame.id),
            Err(rejected) => rejected.id.as_ref(),
        };
        let message = "too many requests per second: slow down (limits.requests_per_second)";
        conn.refuse(id, &Denied::new(Code::Limit, message));
        sleep(wait).await;
        return None;
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
        *is_greeted = true;
    } else if !*is_greeted {
        let message = "say hello first: {\"method\":\"hello\",\"params\":{\"version\":1}}";
        conn.refuse(Some(&frame.id), &Denied::new(Code::Invalid, message));
        return None;
    }
    let bytes = u32::try_from(line.len().clamp(1, INBOUND_BYTES)).unwrap_or(u32::MAX);
    let permits = async {
        let outstanding = Arc::clone(&conn.outstanding).acquire_owned().await?;
        let inbound = Arc::clone(&conn.owner.inbound).acquire_many_owned(bytes).await?;
        Ok::<_, AcquireError>([outstanding, inbound])
    };
    // The semaphores are never closed.
    let Some(Ok(permits)) = unless_gone(conn, permits).await else { return Some(End::Closed) };
    let at = (reader.clock)();
    conn.owner.hears(at);
    let inbound = Inbound {
        ticket: Ticket::new(Arc::clone(conn), frame.id, permits),
        who: conn.owner.who,
        pid: conn.pid,
        method: frame.method,
        call: frame.call,
        key: frame.key,
        at,
    };
    match reader.inputs.send(Input::request(inbound)).await {
        Ok(()) => None,
        Err(_) => Some(End::HubGone),
    }
}

fn shows_key(path: &PathBuf, shown: Option<&str>) -> bool {
    let expected = std::fs::read_to_string(path).unwrap_or_default();
    shown.is_some_and(|shown| identity::is_same_key(shown, &expected))
}

/// Lines out of a socket. Plain reads: descriptors that were sent along are dropped by the kernel.
struct Lines<'a> {
    conn: &'a Conn,
    buffer: Vec<u8>,
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
        let found = self.buffer.get(from..)?.iter().position(|b| *b == b'\n');
        self.searched = found.map_or(self.buffer.len(), |at| from + at);
        found.map(|at| from + at)
    }

    /// Forgets what is dealt with.
    fn consume(&mut self, length: usize) {
        if length == self.buffer.len() && self.buffer.capacity() > 4 * CHUNK {
            self.buffer = Vec::new();
        } else {
            self.buffer.drain(..length);
        }
        self.searched = self.buffer.len();
        self.charge();
    }

    fn charge(&mut self) -> usize {
        let now = self.buffer.len();
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
            let readable = self.conn.stream.readable();
            if self.buffer.is_empty() {
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
            let before = self.buffer.len();
            let room = (MAX_LINE + 1).saturating_sub(before).clamp(1, CHUNK);
            self.buffer.resize(before + room, 0);
            let read = self.conn.stream.try_read(&mut self.buffer[before..]);
            self.buffer.truncate(before + read.as_ref().map_or(0, |n| *n));
            match read {
                Ok(0) => return Ok(Read::End),
                Ok(_) => {}
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
            if self.buffer.len() > MAX_LINE {
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
