//! One output stream of an agent: the pipe's read end, its log, and what is kept of it.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::log::Log;
use crate::sys::channel;

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// A pipe that is read into a log.
#[derive(Debug)]
pub(super) struct Stream {
    pipe: Option<std::fs::File>,
    log: Log,
    kept: Option<Kept>,
}

/// The first bytes of a stream.
#[derive(Debug)]
struct Kept {
    bytes: Vec<u8>,
    max: usize,
    truncated: bool,
}

impl Stream {
    /// Reads from `pipe` into `log` and keeps the first `keep` bytes.
    pub(super) fn new(pipe: OwnedFd, log: Log, keep: Option<usize>) -> io::Result<Self> {
        channel::set_nonblocking(pipe.as_fd())?;
        let kept = keep.map(|max| Kept { bytes: Vec::new(), max, truncated: false });
        Ok(Self { pipe: Some(pipe.into()), log, kept })
    }

    /// What to poll for reading; `None` once every writer has closed it.
    pub(super) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes one chunk. Returns whether there may be more now.
    pub(super) fn read(&mut self) -> bool {
        let Some(pipe) = &mut self.pipe else { return false };
        let mut chunk = vec![0; CHUNK];
        match pipe.read(&mut chunk) {
            Ok(0) => {
                self.pipe = None;
                false
            }
            Ok(count) => {
                self.take(chunk.get(..count).unwrap_or_default());
                true
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(_) => {
                self.pipe = None;
                false
            }
        }
    }

    fn take(&mut self, bytes: &[u8]) {
        if let Some(kept) = &mut self.kept {
            let room = kept.max - kept.bytes.len();
            let fits = bytes.get(..room).unwrap_or(bytes);
            kept.bytes.extend_from_slice(fits);
            kept.truncated |= fits.len() < bytes.len();
        }
        self.log.write(bytes);
    }

    /// Takes what its writers left in the pipe. They are gone; should one have passed the pipe to
    /// somebody outside who goes on writing, this ends after the most that a pipe can hold.
    pub(super) fn finish(&mut self) {
        const MOST: usize = 1 << 20;
        for _ in 0..MOST / CHUNK + 1 {
            if !self.read() {
                break;
            }
        }
        self.pipe = None;
    }

    /// Bytes kept, and whether there were more.
    pub(super) fn into_kept(self) -> (Option<Vec<u8>>, bool, u64) {
        let dropped = self.log.dropped();
        match self.kept {
            Some(kept) => (Some(kept.bytes), kept.truncated, dropped),
            None => (None, false, dropped),
        }
    }
}
