//! When the daemon was last known to be alive: read by the next one, after this one was killed.
//!
//! Deadlines of handoffs don't run while there is no daemon (CORE 20), so the next daemon needs to know
//! since when there was none. The last event says so, but a mission can be quiet for long. So while a
//! handoff is open, and only then, a mark is renewed every few seconds, by a thread: an idle daemon makes
//! no mark and doesn't wake up for one.

use std::fs::OpenOptions;
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::ids::Timestamp;

/// Between two marks; a handoff gets at most that much more time than it should.
const EVERY_MS: u64 = 5_000;

/// When the next mark is due.
#[derive(Debug, Default)]
pub(super) struct Alive {
    next: Option<Timestamp>,
}

impl Alive {
    /// Whether a mark is to be made now. What made a mark needed is an event, and as good as one.
    pub(super) fn is_due(&mut self, now: Timestamp, is_needed: bool) -> bool {
        let due = is_needed && self.next.is_some_and(|at| at <= now);
        self.next = match self.next {
            _ if !is_needed => None,
            Some(at) if !due => Some(at),
            _ => Some(now.plus_ms(EVERY_MS)),
        };
        due
    }

    /// When to ask again; none while no mark is needed.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.next
    }
}

/// Where the mark is.
pub(super) fn path(state: &Path) -> PathBuf {
    state.join("alive")
}

/// Makes a mark; on a thread that may block.
///
/// # Errors
/// The file can't be written.
pub(super) fn mark(path: &Path, now: Timestamp) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    // Always as long as before: written in one piece, in place.
    file.write_all_at(format!("{:020}\n", now.0).as_bytes(), 0)?;
    file.sync_data()
}

/// The last mark, if there is one that can be read.
pub(super) fn last(path: &Path) -> Option<Timestamp> {
    let mut text = String::new();
    std::fs::File::open(path).ok()?.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_due_every_few_seconds_while_it_is_needed_and_never_else() {
        let mut alive = Alive::default();
        assert!(!alive.is_due(Timestamp(0), false));
        assert_eq!(alive.next(), None, "an idle daemon doesn't wake up");
        assert!(!alive.is_due(Timestamp(1_000), true), "the event itself is the first mark");
        assert_eq!(alive.next(), Some(Timestamp(6_000)));
        assert!(!alive.is_due(Timestamp(5_999), true));
        assert!(alive.is_due(Timestamp(6_000), true));
        assert!(!alive.is_due(Timestamp(6_000), true));
        assert_eq!(alive.next(), Some(Timestamp(11_000)));
        assert!(!alive.is_due(Timestamp(20_000), false));
        assert_eq!(alive.next(), None);
    }

    #[test]
    fn the_last_mark_is_read_back_and_nonsense_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path());
        assert_eq!(last(&path), None);
        for at in [1_800_000_000_000, 5] {
            mark(&path, Timestamp(at)).unwrap();
            assert_eq!(last(&path), Some(Timestamp(at)));
        }
        std::fs::write(&path, "0000").unwrap();
        mark(&path, Timestamp(7)).unwrap();
        assert_eq!(last(&path), Some(Timestamp(7)));
        std::fs::write(&path, "soon").unwrap();
        assert_eq!(last(&path), None);
    }
}
