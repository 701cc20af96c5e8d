//! One daemon for one mission: the file `lock` in the runtime directory.
//!
//! The lock is the kernel's (flock(2)) and ends with its holder, however that dies; the pid in the file
//! only says who holds it. The file is never removed: a name that can vanish can be locked twice. The
//! log has a lock of its own, for two daemons that see different runtime directories.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Why this daemon isn't the one.
#[derive(Debug, thiserror::Error)]
pub(super) enum LockError {
    /// Another daemon runs the mission.
    #[error("the mission is run by {} already", holder(*pid))]
    Held {
        /// Its process, if it has written it.
        pid: Option<u32>,
    },
    /// The file can't be used.
    #[error("cannot lock `{path}`")]
    Io {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// The held lock; dropping it releases it.
#[derive(Debug)]
pub(super) struct MissionLock {
    file: File,
    /// The pid of a former holder that died without releasing it.
    pub stale: Option<u32>,
}

impl MissionLock {
    /// Takes the lock and writes our pid.
    ///
    /// # Errors
    /// [`LockError::Held`] with the pid of the one that has it.
    pub(super) fn take(path: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io { path: path.to_owned(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW)
            .open(path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(LockError::Held { pid: written(&mut file) });
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let stale = written(&mut file);
        let text = format!("{}\n", std::process::id());
        file.rewind().map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        file.set_len(text.len() as u64).map_err(failed)?;
        Ok(MissionLock { file, stale })
    }
}

impl Drop for MissionLock {
    fn drop(&mut self) {
        // An empty file tells the next one that this one ended in order; if it can't be emptied, the
        // next one only reports a stale pid.
        let _reported_as_stale = self.file.set_len(0);
    }
}

fn written(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_taker_is_refused_with_the_pid_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = MissionLock::take(&path).unwrap();
        let error = MissionLock::take(&path).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        assert_eq!(MissionLock::take(&path).unwrap().stale, None);
    }

    #[test]
    fn the_lock_of_a_dead_holder_is_taken_over_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::fs::write(&path, "4194303\n").unwrap();
        assert_eq!(MissionLock::take(&path).unwrap().stale, Some(4_194_303));
    }

    #[test]
    fn a_lock_that_is_a_symbolic_link_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(matches!(MissionLock::take(&path), Err(LockError::Io { .. })));
    }
}
