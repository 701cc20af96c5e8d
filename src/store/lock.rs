//! One opener at a time: `mission.lock`.
//!
//! The lock is the kernel's (`flock(2)`), so it ends with its holder however that dies; the pid in
//! the file only says who. A second lock (`fcntl(2)`, a POSIX one) lies on the same descriptor
//! because the kernel itself names *its* holder's pid to whoever asks with `F_GETLK`.
//!
//! The file is never removed: a name that can vanish can be locked twice.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// The file's name in the state directory.
const NAME: &str = "mission.lock";

/// The held lock; dropping it releases it.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
    /// The pid of a former holder that died without releasing the lock.
    pub(super) stale: Option<i32>,
}

/// Why there is no lock.
#[derive(Debug)]
pub(super) enum LockError {
    /// Another holds it; the pid is unknown if it has not written it yet.
    Held(Option<i32>),
    Io(io::Error),
}

impl Lock {
    pub(super) fn take(dir: &Path) -> Result<Self, LockError> {
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(dir.join(NAME))
            .map_err(LockError::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held(holder(&file).or_else(|| written(&mut file))));
            }
            Err(TryLockError::Error(error)) => return Err(LockError::Io(error)),
        }
        let stale = written(&mut file);
        // A file system without POSIX locks costs only the kernel's word on the pid.
        let _unsupported = fcntl(&file, FcntlArg::F_SETLK(&whole(libc::F_WRLCK)));
        rewrite(&mut file, &format!("{}\n", std::process::id())).map_err(LockError::Io)?;
        Ok(Self { file, stale })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // An empty file tells the next opener that this one ended in order. If it cannot be
        // emptied, the next one only reports a stale pid.
        let _reported_as_stale = self.file.set_len(0);
        // Not left to closing: a child that is about to exec still has a copy of the descriptor.
        let _closed_soon = self.file.unlock();
    }
}

fn rewrite(file: &mut File, text: &str) -> io::Result<()> {
    file.rewind()?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

/// The pid that the file names.
fn written(file: &mut File) -> Option<i32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The pid that the kernel names.
fn holder(file: &File) -> Option<i32> {
    let mut lock = whole(libc::F_WRLCK);
    fcntl(file, FcntlArg::F_GETLK(&mut lock)).ok()?;
    (i32::from(lock.l_type) != libc::F_UNLCK && lock.l_pid > 0).then_some(lock.l_pid)
}

/// A lock over all of the file.
fn whole(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: i16::try_from(kind).unwrap_or_default(),
        l_whence: 0,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_learns_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path()).unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(matches!(Lock::take(dir.path()), Err(LockError::Held(Some(pid))) if pid == own));
        drop(first);
        let again = Lock::take(dir.path()).unwrap();
        assert_eq!(again.stale, None);
    }

    #[test]
    fn the_lock_of_a_dead_holder_is_taken_over_and_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(NAME), "4194303\n").unwrap();
        assert_eq!(Lock::take(dir.path()).unwrap().stale, Some(4_194_303));
    }

    #[test]
    fn a_lock_file_that_is_a_symlink_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join(NAME)).unwrap();
        assert!(matches!(Lock::take(dir.path()), Err(LockError::Io(_))));
    }
}
