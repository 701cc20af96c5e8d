//! Room that is kept back for facts.
//!
//! A request can be refused when the disk fills up; a fact (an exit, a timer, a verdict) cannot,
//! since it already happened. So requests stop while there is still room ([`Options::headroom`]),
//! and a file of really allocated blocks ([`Options::reserve`]) is given back to the file system
//! when even a fact finds none. It is made again once there is room.
//!
//! [`Options::headroom`]: super::Options::headroom
//! [`Options::reserve`]: super::Options::reserve

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

/// The file's name in the state directory.
const NAME: &str = "mission.reserve";

/// The reserve file, and what is left on its file system.
#[derive(Debug)]
pub(super) struct Headroom {
    dir: PathBuf,
    /// Bytes the reserve file is to have.
    reserve: u64,
    /// Bytes below which requests are refused.
    mark: u64,
    held: bool,
    /// It could not be made although there was room: a quota, or a file system that cannot.
    given_up: bool,
}

impl Headroom {
    /// Takes over the reserve file that is there; [`Self::refill`] makes it.
    pub(super) fn new(dir: &Path, reserve: u64, mark: u64) -> Self {
        let held = fs::symlink_metadata(dir.join(NAME)).is_ok_and(|meta| allocated(&meta, reserve));
        Self { dir: dir.to_owned(), reserve, mark, held, given_up: false }
    }

    /// Bytes an ordinary user can still write to the file system. Unknown counts as plenty: the
    /// write itself then tells.
    pub(super) fn free(dir: &Path) -> u64 {
        statvfs(dir).map_or(u64::MAX, |fs| fs.blocks_available().saturating_mul(fs.fragment_size()))
    }

    /// Whether requests are to be refused with `free` bytes left. Once they are, half as much again
    /// must be free before they pass, so that the answer does not flicker.
    pub(super) fn is_low(&self, free: u64, was_low: bool) -> bool {
        let mark = if was_low { self.mark + self.mark / 2 } else { self.mark };
        free < mark || (was_low && !self.held && !self.given_up && self.reserve > 0)
    }

    /// Gives the reserve back to the file system. False when there was none.
    pub(super) fn spend(&mut self) -> bool {
        let held = std::mem::take(&mut self.held);
        held && fs::remove_file(self.dir.join(NAME)).is_ok()
    }

    /// Makes the reserve again if it is gone and `free` bytes allow it without going below the mark.
    pub(super) fn refill(&mut self, free: u64) {
        let enough = self.mark.saturating_add(self.reserve);
        if self.held || self.given_up || self.reserve == 0 || free < enough {
            return;
        }
        self.held = match self.allocate() {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, "cannot set disk space aside");
                // A partial file would take room and give nothing.
                let _already_warned = fs::remove_file(self.dir.join(NAME));
                self.given_up = true;
                false
            }
        };
    }

    fn allocate(&self) -> io::Result<()> {
        let path = self.dir.join(NAME);
        // Whatever lies there, also a symlink, is replaced rather than written through.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let len = i64::try_from(self.reserve).unwrap_or(i64::MAX);
        match fallocate(&file, FallocateFlags::empty(), 0, len) {
            Ok(()) => Ok(()),
            Err(Errno::EOPNOTSUPP) => fill(&file, self.reserve),
            Err(errno) => Err(errno.into()),
        }
    }
}

fn allocated(meta: &fs::Metadata, reserve: u64) -> bool {
    meta.is_file() && meta.blocks().saturating_mul(512) >= reserve
}

/// For file systems that cannot allocate without writing.
fn fill(mut file: &File, len: u64) -> io::Result<()> {
    static CHUNK: [u8; 65_536] = [0xa5; 65_536];
    let mut left = len;
    while left > 0 {
        let n = usize::try_from(left).unwrap_or(usize::MAX).min(CHUNK.len());
        file.write_all(&CHUNK[..n])?;
        left -= n as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn the_reserve_is_really_allocated_and_really_given_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut room = Headroom::new(dir.path(), MIB, 4 * MIB);
        assert!(!room.spend(), "nothing to give back yet");
        room.refill(5 * MIB);
        let path = dir.path().join(NAME);
        assert!(allocated(&fs::metadata(&path).unwrap(), MIB));
        assert!(room.spend());
        assert!(!path.exists());
        assert!(!room.spend());
    }

    #[test]
    fn a_reserve_is_not_made_out_of_the_last_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut room = Headroom::new(dir.path(), MIB, 4 * MIB);
        room.refill(5 * MIB - 1);
        assert!(!room.held);
    }

    #[test]
    fn requests_pass_again_only_with_room_to_spare_and_the_reserve_back() {
        let dir = tempfile::tempdir().unwrap();
        let mut room = Headroom::new(dir.path(), MIB, 4 * MIB);
        room.refill(100 * MIB);
        assert!(!room.is_low(4 * MIB, false));
        assert!(room.is_low(4 * MIB - 1, false));
        assert!(room.is_low(5 * MIB, true));
        assert!(!room.is_low(6 * MIB, true));
        room.spend();
        assert!(room.is_low(6 * MIB, true));
    }

    #[test]
    fn a_reserve_left_by_an_earlier_run_is_kept_and_a_hollow_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        Headroom::new(dir.path(), MIB, MIB).refill(u64::MAX);
        assert!(Headroom::new(dir.path(), MIB, MIB).held);
        File::create(dir.path().join(NAME)).unwrap().set_len(MIB).unwrap();
        assert!(!Headroom::new(dir.path(), MIB, MIB).held);
    }
}
