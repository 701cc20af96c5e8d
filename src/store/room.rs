//! The word on room that the writer leaves for whoever appends.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use super::headroom::Headroom;

/// Whether requests are refused for want of room.
///
/// The flags are only hints for a refusal; the write itself is what decides, so relaxed order does.
#[derive(Debug)]
pub(super) struct Room {
    dir: PathBuf,
    mark: u64,
    low: AtomicBool,
    log_low: AtomicBool,
    asked: AtomicBool,
}

impl Room {
    pub(super) fn new(dir: &Path, mark: u64) -> Self {
        let flag = || AtomicBool::new(false);
        Self { dir: dir.to_owned(), mark, low: flag(), log_low: flag(), asked: flag() }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn mark(&self) -> u64 {
        self.mark
    }

    pub(super) fn is_low(&self) -> bool {
        self.low.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, low: bool, log_low: bool) {
        self.low.store(low, Ordering::Relaxed);
        self.log_low.store(log_low, Ordering::Relaxed);
        self.asked.store(false, Ordering::Relaxed);
    }

    /// Whether the writer should look again, because the disk has room now. Asked with each refused
    /// request, so that recovery needs no timer. True once per measurement.
    pub(super) fn may_have_recovered(&self) -> bool {
        !self.log_low.load(Ordering::Relaxed)
            && Headroom::free(&self.dir) >= self.mark
            && !self.asked.swap(true, Ordering::Relaxed)
    }
}
