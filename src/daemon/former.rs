//! The former start of an agent: whether anything of it still runs.
//!
//! After a daemon was killed, its shims see the end of their channels and end their agents: within a
//! second, but the next daemon may be quicker than that. A shim holds the agent's lock for as long as it
//! lives, so whoever has the lock is alone with the agent's directories. The lock is not kept here: the
//! new shim takes it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use crate::ids::AgentName;

/// Waits until no former start of the agent runs, on a thread that may block; the lock comes back.
///
/// flock(2) waits for ever or not at all, so a thread waits with it. Should it be too late, that thread
/// is left to wait on its own: one for each start that has failed here, and a start that fails here is
/// not tried again by itself.
///
/// # Errors
/// `ETIMEDOUT` when a former start outlives the timeout; or the lock can't be taken at all.
pub(super) fn await_end(agent: &AgentName, path: &Path, timeout: Duration) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    tracing::warn!(%agent, "a former start still runs: waiting for its end");
    let (send, locked) = sync_channel(1);
    thread::Builder::new().name("agent-lock".into()).spawn(move || {
        let outcome = file.lock().map(|()| file);
        // Nobody waits any more: then it is unlocked again here.
        let _too_late = send.send(outcome);
    })?;
    match locked.recv_timeout(timeout) {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::from_raw_os_error(libc::ETIMEDOUT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> AgentName {
        "a".parse().unwrap()
    }

    #[test]
    fn a_start_waits_for_the_end_of_the_former_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let former = await_end(&name(), &path, Duration::ZERO).unwrap();
        let (again, waiting) = (path.clone(), thread::current());
        let next = thread::spawn(move || {
            waiting.unpark();
            await_end(&name(), &again, Duration::from_secs(60)).map(drop)
        });
        thread::park();
        drop(former);
        next.join().unwrap().unwrap();
    }

    #[test]
    fn a_former_start_that_does_not_end_is_an_error_and_not_a_wait_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let former = await_end(&name(), &path, Duration::ZERO).unwrap();
        let error = await_end(&name(), &path, Duration::ZERO).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
        // And what was left waiting holds up nobody once the former one has ended.
        drop(former);
        await_end(&name(), &path, Duration::from_secs(60)).unwrap();
    }
}
