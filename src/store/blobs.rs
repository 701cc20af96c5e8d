//! Files named by the hash of what is in them: checkpoints' attachments.
//!
//! `blobs/ab/cdef…` for SHA-256 `abcdef…`. A blob is written to `blobs/tmp`, synced, renamed, and
//! its directory synced, so a hash that was returned stays readable after power loss. Blobs are
//! never changed; [`Blobs::collect`] removes those that nothing names any more.
//!
//! A [`Blob`] pins its file while it is held: keep it until the event that names the hash is
//! durable, and no collection in between can take the file away.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::libc;
use sha2::{Digest, Sha256};

use super::beneath::{self, BeneathError, NewFile};
use super::record::Hash;

/// Where blobs are written before they have a name.
const TMP: &str = "tmp";
/// Bytes moved at once.
const CHUNK: usize = 64 << 10;

/// Why a blob could not be stored or given out.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The file is larger than is taken.
    #[error("the file is larger than {limit} bytes")]
    TooLarge {
        /// What is taken at most.
        limit: u64,
    },
    /// All blobs together would be larger than is kept.
    #[error("the blobs would take more than their quota of {quota} bytes")]
    Quota {
        /// What is kept at most.
        quota: u64,
    },
    /// The disk is full.
    #[error("no space is left for blobs")]
    Full,
    /// There is no such blob.
    #[error("there is no blob {hash}")]
    Missing {
        /// The blob asked for.
        hash: Hash,
    },
    /// What is in the file is not what its name says.
    #[error("blob {hash} is damaged")]
    Damaged {
        /// The blob asked for.
        hash: Hash,
    },
    /// The source could not be read, or the destination written.
    #[error("copying failed")]
    Copy(#[source] io::Error),
    /// A file in an agent's tree was not touched.
    #[error(transparent)]
    Beneath(#[from] BeneathError),
    /// The system refused.
    #[error("cannot {what} `{}`", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The blobs of a mission. Calls block for file work, so make them from a thread that may.
#[derive(Debug, Clone)]
pub struct Blobs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    quota: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    used: u64,
    pins: HashMap<Hash, usize>,
    /// Collections that were begun, and what was pinned at some time since: their lists of what is
    /// live may be older than the event that names it.
    collections: usize,
    recent: HashSet<Hash>,
}

/// A collection that was begun: what is pinned now or from now on is out of its reach, also when it
/// is unpinned before the collection is carried out.
#[derive(Debug)]
pub struct Collection {
    shared: Arc<Shared>,
}

impl Drop for Collection {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        state.collections = state.collections.saturating_sub(1);
        if state.collections == 0 {
            state.recent = HashSet::new();
        }
    }
}

/// A stored blob, pinned for as long as this value is held.
#[derive(Debug)]
pub struct Blob {
    hash: Hash,
    size: u64,
    shared: Arc<Shared>,
}

impl Blob {
    /// The SHA-256 of its bytes.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Its size in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        let mut state = self.shared.lock();
        if let Some(pins) = state.pins.get_mut(&self.hash) {
            *pins -= 1;
            if *pins == 0 {
                state.pins.remove(&self.hash);
            }
        }
    }
}

/// What a collection removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    /// How many blobs.
    pub blobs: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl Blobs {
    /// Opens the blobs in `dir`, making it if need be, and removes what a crash left half written.
    /// Hold the mission's log open meanwhile: its lock is theirs too.
    ///
    /// # Errors
    /// [`BlobError::Io`], [`BlobError::Full`].
    pub fn open(dir: &Path, quota: u64) -> Result<Self, BlobError> {
        let tmp = dir.join(TMP);
        match fs::remove_dir_all(&tmp) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(failed("clear", &tmp, error));
            }
            _ => {}
        }
        make_dir(dir)?;
        make_dir(&tmp)?;
        let shared = Shared { dir: dir.to_owned(), quota, state: Mutex::default() };
        let mut used = 0;
        shared.each(|_, _, size| {
            used += size;
            Ok(())
        })?;
        shared.lock().used = used;
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Bytes that all blobs take.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.shared.lock().used
    }

    /// Stores what `source` gives, up to `limit` bytes. It is durable when this returns.
    ///
    /// # Errors
    /// [`BlobError::TooLarge`], [`BlobError::Quota`], [`BlobError::Full`]; nothing is left behind.
    pub fn put(&self, source: &mut dyn Read, limit: u64) -> Result<Blob, BlobError> {
        let shared = &self.shared;
        let left = shared.quota.saturating_sub(self.used());
        let temporary = Temporary::create(&shared.dir.join(TMP))?;
        let mut file = &temporary.file;
        let mut sha = Sha256::new();
        let mut size = 0;
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = read_some(source, &mut chunk).map_err(BlobError::Copy)?;
            if n == 0 {
                break;
            }
            size += n as u64;
            if size > limit {
                return Err(BlobError::TooLarge { limit });
            }
            if size > left {
                return Err(BlobError::Quota { quota: shared.quota });
            }
            sha.update(&chunk[..n]);
            file.write_all(&chunk[..n]).map_err(|e| failed("write", &temporary.path, e))?;
        }
        file.sync_all().map_err(|e| failed("sync", &temporary.path, e))?;
        let hash = Hash(sha.finalize().into());
        self.place(temporary, hash, size)
    }

    /// Gives a written file its name, and makes that durable.
    fn place(&self, temporary: Temporary, hash: Hash, size: u64) -> Result<Blob, BlobError> {
        let shared = &self.shared;
        let path = shared.path(hash);
        let dir = path.parent().unwrap_or(&shared.dir);
        if make_dir(dir)? {
            sync(&shared.dir)?;
        }
        let mut state = shared.lock();
        let there = fs::symlink_metadata(&path).map(|meta| meta.len()).ok();
        let used = state.used - there.unwrap_or(0).min(state.used) + size;
        if there.is_none() && used > shared.quota {
            return Err(BlobError::Quota { quota: shared.quota });
        }
        // Also over a blob that is there: should that be damaged, it is whole again.
        temporary.rename(&path)?;
        state.used = used;
        *state.pins.entry(hash).or_default() += 1;
        if state.collections > 0 {
            state.recent.insert(hash);
        }
        drop(state);
        let blob = Blob { hash, size, shared: Arc::clone(shared) };
        sync(dir)?;
        Ok(blob)
    }

    /// Stores a regular file of a tree that an agent can write, with its permission bits. The path
    /// is never resolved outside `root`.
    ///
    /// # Errors
    /// [`BlobError::Beneath`] for anything but a regular file beneath, and as [`Self::put`].
    pub fn ingest(
        &self,
        root: BorrowedFd<'_>,
        path: &Path,
        limit: u64,
    ) -> Result<(Blob, u32), BlobError> {
        let (mut file, mode) = beneath::open_file(root, path)?;
        Ok((self.put(&mut file, limit)?, mode))
    }

    /// Writes a blob into a tree that an agent can write, with the permission bits of `mode`, and
    /// the directories above it. The file appears whole and checked, or not at all.
    ///
    /// # Errors
    /// As [`Self::copy_to`], and [`BlobError::Beneath`].
    pub fn restore(
        &self,
        hash: Hash,
        root: BorrowedFd<'_>,
        path: &Path,
        mode: u32,
    ) -> Result<u64, BlobError> {
        let mut new = NewFile::create(root, path)?;
        let size = self.copy_to(hash, &mut new.file)?;
        new.place(mode)?;
        Ok(size)
    }

    /// Writes a blob's bytes to `to` and returns how many. They are checked on the way: after an
    /// error, what was written is not the blob.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::Damaged`], [`BlobError::Copy`].
    pub fn copy_to(&self, hash: Hash, to: &mut dyn Write) -> Result<u64, BlobError> {
        let path = self.shared.path(hash);
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(&path);
        let mut file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::Missing { hash });
            }
            Err(error) => return Err(failed("open", &path, error)),
        };
        let mut sha = Sha256::new();
        let mut size = 0;
        let mut chunk = vec![0; CHUNK];
        loop {
            let n = read_some(&mut file, &mut chunk).map_err(|e| failed("read", &path, e))?;
            if n == 0 {
                break;
            }
            size += n as u64;
            sha.update(&chunk[..n]);
            to.write_all(&chunk[..n]).map_err(BlobError::Copy)?;
        }
        if Hash(sha.finalize().into()) != hash {
            return Err(BlobError::Damaged { hash });
        }
        Ok(size)
    }

    /// Begins a collection: call this, then find out what is live, then [`Self::collect`].
    #[must_use]
    pub fn begin_collection(&self) -> Collection {
        let mut state = self.shared.lock();
        state.collections += 1;
        let pinned: Vec<Hash> = state.pins.keys().copied().collect();
        state.recent.extend(pinned);
        Collection { shared: Arc::clone(&self.shared) }
    }

    /// Removes every blob that is neither in `live`, nor pinned, nor was since `_begun`.
    ///
    /// # Errors
    /// [`BlobError::Io`]; what was removed before it stays removed.
    pub fn collect(
        &self,
        _begun: Collection,
        live: &HashSet<Hash>,
    ) -> Result<Collected, BlobError> {
        let mut collected = Collected::default();
        self.shared.each(|path, hash, size| {
            // Held over the removal, so that no `put` of the same bytes comes between.
            let mut state = self.shared.lock();
            let kept = state.pins.contains_key(&hash) || state.recent.contains(&hash);
            if kept || live.contains(&hash) {
                return Ok(());
            }
            fs::remove_file(path).map_err(|e| failed("remove", path, e))?;
            state.used = state.used.saturating_sub(size);
            collected.blobs += 1;
            collected.bytes += size;
            Ok(())
        })?;
        Ok(collected)
    }
}

impl Shared {
    /// No code panics while it holds the lock, so a poisoned state is still a whole one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, hash: Hash) -> PathBuf {
        let name = hash.to_string();
        self.dir.join(&name[..2]).join(&name[2..])
    }

    /// Visits every blob; files with other names are not ours and are left alone.
    fn each(
        &self,
        mut visit: impl FnMut(&Path, Hash, u64) -> Result<(), BlobError>,
    ) -> Result<(), BlobError> {
        for shard in entries(&self.dir)? {
            let Some(prefix) = shard.file_name().and_then(|name| name.to_str()) else { continue };
            if prefix.len() != 2 {
                continue;
            }
            for path in entries(&shard)? {
                let Some(rest) = path.file_name().and_then(|name| name.to_str()) else { continue };
                let Ok(hash) = format!("{prefix}{rest}").parse() else { continue };
                let meta = fs::symlink_metadata(&path).map_err(|e| failed("look at", &path, e))?;
                visit(&path, hash, meta.len())?;
            }
        }
        Ok(())
    }
}

/// A file without its final name; dropped before [`Self::rename`], it is removed.
struct Temporary {
    path: PathBuf,
    file: File,
    renamed: bool,
}

impl Temporary {
    fn create(dir: &Path) -> Result<Self, BlobError> {
        let name = beneath::random_name().map_err(|errno| failed("name", dir, errno.into()))?;
        let path = dir.join(name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| failed("make", &path, error))?;
        Ok(Self { path, file, renamed: false })
    }

    fn rename(mut self, to: &Path) -> Result<(), BlobError> {
        fs::rename(&self.path, to).map_err(|error| failed("make", to, error))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // The next open clears the directory in any case.
            let _cleared_later = fs::remove_file(&self.path);
        }
    }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, BlobError> {
    let read = || -> io::Result<Vec<PathBuf>> {
        fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
    };
    read().map_err(|error| failed("list", dir, error))
}

/// Makes a directory; false when it is there.
fn make_dir(dir: &Path) -> Result<bool, BlobError> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(failed("make", dir, error)),
    }
}

fn sync(dir: &Path) -> Result<(), BlobError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|error| failed("sync", dir, error))
}

fn read_some(source: &mut dyn Read, chunk: &mut [u8]) -> io::Result<usize> {
    loop {
        match source.read(chunk) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> BlobError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC | Errno::EDQUOT) => BlobError::Full,
        _ => BlobError::Io { what, path: path.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn blobs(quota: u64) -> (tempfile::TempDir, Blobs) {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(&dir.path().join("blobs"), quota).unwrap();
        (dir, blobs)
    }

    fn bytes(blobs: &Blobs, hash: Hash) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Vec::new();
        blobs.copy_to(hash, &mut bytes).map(|_| bytes)
    }

    fn half_written(blobs: &Blobs) -> usize {
        fs::read_dir(blobs.shared.dir.join(TMP)).unwrap().count()
    }

    #[test]
    fn a_blob_is_named_by_its_hash_and_private() {
        let (dir, blobs) = blobs(MIB);
        let blob = blobs.put(&mut &b"abc"[..], 3).unwrap();
        let name = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!((blob.hash().to_string().as_str(), blob.size()), (name, 3));
        let path = dir.path().join("blobs/ba").join(&name[2..]);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(bytes(&blobs, blob.hash()).unwrap(), b"abc");
    }

    #[test]
    fn a_file_over_the_limit_or_the_quota_leaves_nothing() {
        let (_dir, blobs) = blobs(10);
        assert!(matches!(blobs.put(&mut &[0; 5][..], 4), Err(BlobError::TooLarge { limit: 4 })));
        let _first = blobs.put(&mut &[1; 6][..], 100).unwrap();
        assert!(matches!(blobs.put(&mut &[2; 6][..], 100), Err(BlobError::Quota { quota: 10 })));
        assert_eq!((blobs.used(), half_written(&blobs)), (6, 0));
        let _second = blobs.put(&mut &[2; 4][..], 100).unwrap();
        assert_eq!(blobs.used(), 10);
    }

    #[test]
    fn the_same_bytes_count_once_and_heal_a_damaged_blob() {
        let (_dir, blobs) = blobs(MIB);
        let hash = blobs.put(&mut &b"abc"[..], 3).unwrap().hash();
        let path = blobs.shared.path(hash);
        fs::write(&path, "abd").unwrap();
        assert!(matches!(bytes(&blobs, hash), Err(BlobError::Damaged { .. })));
        let _again = blobs.put(&mut &b"abc"[..], 3).unwrap();
        assert_eq!(bytes(&blobs, hash).unwrap(), b"abc");
        assert_eq!(blobs.used(), 3);
    }

    #[test]
    fn a_collection_spares_what_is_live_or_pinned() {
        let (_dir, blobs) = blobs(MIB);
        let live = blobs.put(&mut &b"live"[..], 9).unwrap().hash();
        let dead = blobs.put(&mut &b"dead"[..], 9).unwrap().hash();
        let pinned = blobs.put(&mut &b"pinned"[..], 9).unwrap();
        let pinned_before = blobs.put(&mut &b"pinned"[..], 9).unwrap();
        let begun = blobs.begin_collection();
        drop(pinned_before);
        let collected = blobs.collect(begun, &HashSet::from([live])).unwrap();
        assert_eq!(collected, Collected { blobs: 1, bytes: 4 });
        assert!(bytes(&blobs, live).is_ok() && bytes(&blobs, pinned.hash()).is_ok());
        assert!(matches!(bytes(&blobs, dead), Err(BlobError::Missing { .. })));
        drop(pinned);
        let begun = blobs.begin_collection();
        assert_eq!(blobs.collect(begun, &HashSet::from([live])).unwrap().blobs, 1);
        assert_eq!(blobs.used(), 4);
    }

    /// A checkpoint's files were stored when the list of what is live was made, the checkpoint was
    /// decided, made durable and its pins let go, and then the collection ran.
    #[test]
    fn a_collection_spares_what_was_pinned_since_it_was_begun() {
        let (_dir, blobs) = blobs(MIB);
        let early = blobs.put(&mut &b"early"[..], 9).unwrap();
        let (first, second) = (blobs.begin_collection(), blobs.begin_collection());
        let late = blobs.put(&mut &b"late"[..], 9).unwrap();
        let hashes = [early.hash(), late.hash()];
        drop((early, late));
        for begun in [first, second] {
            assert_eq!(blobs.collect(begun, &HashSet::new()).unwrap(), Collected::default());
        }
        assert!(hashes.iter().all(|hash| bytes(&blobs, *hash).is_ok()));
        let begun = blobs.begin_collection();
        assert_eq!(blobs.collect(begun, &HashSet::new()).unwrap().blobs, 2);
    }

    #[test]
    fn what_a_crash_left_is_cleared_and_the_rest_is_counted() {
        let (dir, blobs) = blobs(MIB);
        let _kept = blobs.put(&mut &b"kept"[..], 9).unwrap();
        fs::write(dir.path().join("blobs/tmp/half"), "x").unwrap();
        let again = Blobs::open(&dir.path().join("blobs"), MIB).unwrap();
        assert_eq!((again.used(), half_written(&again)), (4, 0));
    }

    #[test]
    fn a_file_goes_from_one_tree_to_another_with_its_mode() {
        let (dir, blobs) = blobs(MIB);
        for tree in ["from", "to"] {
            fs::create_dir(dir.path().join(tree)).unwrap();
        }
        let path = dir.path().join("from/run.sh");
        fs::write(&path, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o4750)).unwrap();
        let from = File::open(dir.path().join("from")).unwrap();
        let to = File::open(dir.path().join("to")).unwrap();
        let (blob, mode) = blobs.ingest(from.as_fd(), Path::new("run.sh"), MIB).unwrap();
        assert_eq!(mode, 0o750);
        let restored = Path::new("deep/down/run.sh");
        blobs.restore(blob.hash(), to.as_fd(), restored, mode).unwrap();
        let meta = fs::metadata(dir.path().join("to").join(restored)).unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.len()), (0o750, 10));
    }

    #[test]
    fn a_damaged_blob_is_not_restored() {
        let (dir, blobs) = blobs(MIB);
        let blob = blobs.put(&mut &b"abc"[..], 3).unwrap();
        fs::write(blobs.shared.path(blob.hash()), "abd").unwrap();
        fs::create_dir(dir.path().join("to")).unwrap();
        let to = File::open(dir.path().join("to")).unwrap();
        let outcome = blobs.restore(blob.hash(), to.as_fd(), Path::new("x"), 0o600);
        assert!(matches!(outcome, Err(BlobError::Damaged { .. })));
        assert_eq!(beneath::list(to.as_fd(), 10).unwrap(), beneath::Listing::default());
    }
}
