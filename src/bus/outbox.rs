//! What waits to be written to one connection.
//!
//! The hub writes at the end of its turn without any other task being woken; only when the socket is
//! full does the connection's writer task take over until the queue is empty.
//!
//! ```text
//!           push                    flush: all written
//!  idle ----------> queued by hub ---------------------> idle
//!                        | flush: socket is full            ^
//!                        '--> the writer task waits --------'
//! ```

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::frames::{Frame, SharedFrame};
use super::quota::{OWNER_BYTES, OWNER_PUSH_BYTES, Owner, PUSH_BYTES};
use crate::sys::socket::Socket;

/// Bytes of one reader's own frames that are put together.
const OWN: usize = 16 << 10;

/// Pieces of one write.
const BATCH: usize = 64;

#[derive(Debug, Default)]
struct Queue {
    /// In pieces of one or more frames.
    frames: VecDeque<Frame>,
    /// Bytes of the first piece that are written already.
    written: usize,
    /// Bytes of all frames that are not written.
    bytes: usize,
    /// The writer task is on it.
    is_draining: bool,
    /// Somebody (the hub, for a reader that fell back to the log) is to be told of room.
    wants_room: bool,
    /// Nothing goes out any more.
    is_closed: bool,
}

impl Queue {
    fn append(&mut self, frame: &SharedFrame) {
        self.bytes += frame.len();
        if !self.frames.back_mut().is_some_and(|last| last.grow(frame)) {
            self.frames.push_back(Frame::Shared(frame.clone()));
        }
    }
}

/// How a flush ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    /// The queue is empty.
    All,
    /// The socket is full.
    Blocked,
    /// The connection is over.
    Closed,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Outbox {
    socket: Arc<Socket>,
    owner: Arc<Owner>,
    queue: Mutex<Queue>,
    /// Wakes the writer task.
    pub(super) wake: Notify,
    /// Wakes the reader task, which waits while its peer does not read.
    room: Notify,
}

impl Outbox {
    pub(super) fn new(socket: Arc<Socket>, owner: Arc<Owner>) -> Self {
        let queue = Mutex::new(Queue::default());
        Outbox { socket, owner, queue, wake: Notify::new(), room: Notify::new() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a frame; a connection whose owner leaves too much unread is ended instead.
    pub(super) fn push(&self, frame: Frame) {
        let mut queue = self.queue();
        if queue.is_closed {
            return;
        }
        let length = frame.bytes().len();
        let queued = self.owner.queued.fetch_add(length, Ordering::Relaxed);
        if queued > 0 && queued + length > OWNER_BYTES {
            queue.bytes += length;
            self.close_locked(&mut queue);
            return;
        }
        queue.bytes += length;
        match (queue.frames.back_mut(), frame) {
            // Answers are short and many.
            (Some(Frame::Own(last)), Frame::Own(line)) if last.len() + line.len() <= OWN => {
                last.extend_from_slice(&line);
            }
            (_, frame) => queue.frames.push_back(frame),
        }
    }

    /// Queues a notification, unless its reader is to fall back to the log. Says which.
    pub(super) fn push_shared(&self, frame: &SharedFrame) -> bool {
        let mut queue = self.queue();
        if queue.is_closed || queue.bytes >= PUSH_BYTES || !self.owner.may_push() {
            return false;
        }
        queue.append(frame);
        self.owner.queued.fetch_add(frame.len(), Ordering::Relaxed);
        true
    }

    /// Queues notifications that are not in the log, for as long as they are worth it. Says whether
    /// there is any.
    pub(super) fn push_ephemeral<'a>(&self, frames: impl Iterator<Item = &'a SharedFrame>) -> bool {
        let mut queue = self.queue();
        let before = self.owner.queued.load(Ordering::Relaxed);
        let mut bytes = 0;
        for frame in frames {
            if queue.is_closed
                || queue.bytes >= PUSH_BYTES / 2
                || before + bytes >= OWNER_PUSH_BYTES
            {
                break;
            }
            queue.append(frame);
            bytes += frame.len();
        }
        self.owner.queued.fetch_add(bytes, Ordering::Relaxed);
        bytes > 0
    }

    /// Whether a notification may be queued, or its reader is to fall back to the log.
    pub(super) fn may_push(&self) -> bool {
        let queue = self.queue();
        !queue.is_closed && queue.bytes < PUSH_BYTES && self.owner.may_push()
    }

    /// Asks to be told when there is room again.
    pub(super) fn want_room(&self) {
        let mut queue = self.queue();
        queue.wants_room = true;
        queue.is_draining = true;
        drop(queue);
        self.wake.notify_one();
    }

    /// Whether somebody asked for room and there is some now; says so once.
    pub(super) fn take_wanted_room(&self) -> bool {
        let mut queue = self.queue();
        queue.bytes < PUSH_BYTES && std::mem::take(&mut queue.wants_room)
    }

    /// Whether there is nothing to wait for in [`Outbox::wait_for_room`].
    pub(super) fn has_room(&self) -> bool {
        let queue = self.queue();
        queue.is_closed || queue.bytes < PUSH_BYTES
    }

    /// Waits until the peer has read most of what it was sent. Cancel-safe.
    pub(super) async fn wait_for_room(&self) {
        loop {
            let room = self.room.notified();
            if self.has_room() {
                return;
            }
            room.await;
        }
    }

    /// The hub's turn ends: writes what can be written now. What cannot is the writer task's.
    pub(super) fn flush(&self) {
        let mut queue = self.queue();
        if queue.is_draining {
            return;
        }
        if self.write(&mut queue) == Flushed::Blocked {
            queue.is_draining = true;
            drop(queue);
            self.wake.notify_one();
        }
    }

    /// The writer task's turn.
    pub(super) fn drain(&self) -> Flushed {
        let mut queue = self.queue();
        let flushed = self.write(&mut queue);
        queue.is_draining = flushed == Flushed::Blocked;
        flushed
    }

    fn write(&self, queue: &mut Queue) -> Flushed {
        while !queue.is_closed && !queue.frames.is_empty() {
            let mut slices = [IoSlice::new(&[]); BATCH];
            let mut count = 0;
            for (slice, frame) in slices.iter_mut().zip(&queue.frames) {
                let skip = if count == 0 { queue.written } else { 0 };
                *slice = IoSlice::new(frame.bytes().get(skip..).unwrap_or_default());
                count += 1;
            }
            match self.socket.try_write_vectored(&slices[..count]) {
                Ok(0) => self.close_locked(queue),
                Ok(n) => self.consume(queue, n),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flushed::Blocked,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.close_locked(queue),
            }
        }
        if queue.is_closed { Flushed::Closed } else { Flushed::All }
    }

    fn consume(&self, queue: &mut Queue, mut n: usize) {
        let was_full = queue.bytes >= PUSH_BYTES;
        queue.bytes -= n;
        self.owner.queued.fetch_sub(n, Ordering::Relaxed);
        n += queue.written;
        while let Some(frame) = queue.frames.front() {
            let length = frame.bytes().len();
            if n < length {
                break;
            }
            n -= length;
            queue.frames.pop_front();
        }
        queue.written = n;
        if queue.frames.is_empty() && queue.frames.capacity() > 1_024 {
            queue.frames = VecDeque::new();
        }
        if was_full && queue.bytes < PUSH_BYTES {
            self.room.notify_waiters();
        }
    }

    /// Ends the connection now: the reader task sees the end of the stream, the writer task stops.
    pub(super) fn close(&self) {
        self.close_locked(&mut self.queue());
    }

    fn close_locked(&self, queue: &mut Queue) {
        if std::mem::replace(&mut queue.is_closed, true) {
            return;
        }
        self.owner.queued.fetch_sub(queue.bytes, Ordering::Relaxed);
        queue.bytes = 0;
        queue.frames = VecDeque::new();
        self.socket.shut_down(Shutdown::Both);
        self.room.notify_waiters();
        self.wake.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.queue().is_closed
    }

    /// Whether all is written (or never will be).
    pub(super) fn is_empty(&self) -> bool {
        self.queue().frames.is_empty()
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.close();
    }
}
