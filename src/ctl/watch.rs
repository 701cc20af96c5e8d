//! Waits for changes in a directory by inotify(7). What changed is for the reader to find out: one look
//! at the directory after each wake-up is right even where events were merged or lost.

use std::io;
use std::path::Path;

use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;

/// The changes of a directory, from the making of this on.
pub(crate) struct Changes {
    // Like a pipe's reading end: it becomes readable, is read, and is never written to.
    inotify: Receiver,
}

impl Changes {
    /// Watches `directory`: files made, removed, renamed or written to in it.
    ///
    /// # Errors
    /// There is no such directory, or no inotify instance is left (EMFILE).
    pub(crate) fn of(directory: &Path) -> io::Result<Self> {
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let flags = WatchFlags::CREATE
            | WatchFlags::MODIFY
            | WatchFlags::MOVE
            | WatchFlags::DELETE
            | WatchFlags::ONLYDIR;
        add_watch(&inotify, directory, flags)?;
        Ok(Changes { inotify: Receiver::from_owned_fd_unchecked(inotify)? })
    }

    /// Returns when something has changed since the last return. Cancel-safe.
    ///
    /// # Errors
    /// The kernel's word on reading the events.
    pub(crate) async fn next(&mut self) -> io::Result<()> {
        // Room for many events; each has up to 272 bytes, and what is left comes again.
        let mut events = [0u8; 4096];
        match self.inotify.read(&mut events).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_file_that_is_made_wakes_the_reader() {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut changes = Changes::of(dir.path()).unwrap();
            let quiet = tokio::time::timeout(Duration::from_millis(20), changes.next()).await;
            assert!(quiet.is_err(), "nothing has changed yet");
            std::fs::write(dir.path().join("x"), "1").unwrap();
            tokio::time::timeout(Duration::from_secs(10), changes.next()).await.unwrap().unwrap();
        });
    }
}
